// The colours of the style sheet, for canvases.

const NAMES = ["ink", "soft", "faint", "line", "panel", "bad", "warn", "ok", "accent"];
export const VERSION_COLOURS = 6;

let colours = null;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours = null; });

export function palette() {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(`--${name}`).trim();
    colours = Object.fromEntries(NAMES.map((name) => [name, value(name)]));
    colours.versions = Array.from({length: VERSION_COLOURS}, (_, i) => value(`v${i}`));
    colours.pale = Array.from({length: VERSION_COLOURS}, (_, i) => value(`v${i}-pale`));
  }
  return colours;
}

export const colourIndex = (version) => ((version % VERSION_COLOURS) + VERSION_COLOURS) % VERSION_COLOURS;

// A canvas of so many CSS pixels, sharp on any screen. Its context, cleared.
export function prepare(canvas, width, height) {
  const ratio = Math.min(devicePixelRatio || 1, 3);
  const pixels = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) {
    [canvas.width, canvas.height] = pixels;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}
