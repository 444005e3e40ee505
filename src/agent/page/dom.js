// Elements by hand. Text only ever becomes a text node: much of it comes from workers, who may say
// anything.

export const byId = (id) => document.getElementById(id);

// el("td", {class: "x", title: "y"}, "text", node): attributes are set as such, `on...` listens.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else if (value === true) {
      node.setAttribute(name, "");
    } else if (value !== false && value !== undefined && value !== null) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
  return node;
}

// Sets text only where it differs, so that screen readers and selections are left in peace.
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

// Brings `list` to hold one element for each item, in their order: those that stay are kept.
export function keyed(list, items, keyOf, make, update) {
  const old = list.elementsByKey ?? new Map();
  const now = new Map();
  let before = list.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const node = old.get(key) ?? make(item);
    old.delete(key);
    now.set(key, node);
    update(node, item);
    if (node === before) {
      before = before.nextElementSibling;
    } else {
      list.insertBefore(node, before);
    }
  }
  for (const node of old.values()) node.remove();
  list.elementsByKey = now;
}

// Two columns of a <dl>: [["name", "value"], ...]; a value may be a node.
export function fillPairs(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}
