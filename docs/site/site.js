// Search over window.searchIndex (search-index.js), and the choice of light and dark. No server is needed.
"use strict";

// Parts in which every word occurs, the best first: words in a title count most, then headings, then text.
function search(index, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return [];
  const found = [];
  for (const entry of index) {
    const title = entry.title.toLowerCase();
    const part = entry.part.toLowerCase();
    const text = entry.text.toLowerCase();
    let score = 0;
    for (const word of words) {
      const own = (title.includes(word) ? 6 : 0) + (part.includes(word) ? 10 : 0) + Math.min(text.split(word).length - 1, 5);
      if (own === 0) {
        score = 0;
        break;
      }
      score += own;
    }
    if (score > 0) found.push({ entry, score });
  }
  found.sort((a, b) => b.score - a.score);
  return found.slice(0, 12).map((each) => each.entry);
}

// What stands around the first word found.
function excerpt(entry, query) {
  const word = query.toLowerCase().split(/\s+/).filter(Boolean)[0] || "";
  const at = Math.max(0, entry.text.toLowerCase().indexOf(word) - 40);
  return (at > 0 ? "…" : "") + entry.text.slice(at, at + 140);
}

if (typeof module !== "undefined") {
  module.exports = { search, excerpt };
} else {
  const input = document.getElementById("search");
  const results = document.getElementById("results");
  const top = document.body.dataset.top;
  const show = () => {
    const entries = search(window.searchIndex, input.value);
    results.hidden = input.value.trim() === "";
    results.replaceChildren(
      ...entries.map((entry) => {
        const link = document.createElement("a");
        link.href = top + "/" + entry.page;
        link.append(entry.part && entry.part !== entry.title ? entry.title + " › " + entry.part : entry.title);
        const small = document.createElement("small");
        small.append(excerpt(entry, input.value));
        link.append(small);
        return link;
      }),
    );
    if (entries.length === 0) {
      const nothing = document.createElement("p");
      nothing.append("Nothing found.");
      results.append(nothing);
    }
  };
  input.addEventListener("input", show);
  input.addEventListener("keydown", (event) => {
    const links = [...results.querySelectorAll("a")];
    const at = links.findIndex((link) => link.classList.contains("at"));
    if (event.key === "Enter" && links.length > 0) location.href = links[Math.max(at, 0)].href;
    if (event.key === "Escape") results.hidden = true;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      links[at]?.classList.remove("at");
      links[Math.min(Math.max(at + (event.key === "ArrowDown" ? 1 : -1), 0), links.length - 1)]?.classList.add("at");
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== input) {
      event.preventDefault();
      input.focus();
    }
  });
  const themes = ["auto", "light", "dark"];
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const names = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  button.textContent = names[root.dataset.theme] || "Theme";
  button.addEventListener("click", () => {
    root.dataset.theme = themes[(themes.indexOf(root.dataset.theme) + 1) % 3];
    button.textContent = names[root.dataset.theme];
    try {
      localStorage.theme = root.dataset.theme;
    } catch (error) {
      // Without storage the choice holds for this page.
    }
  });
}
