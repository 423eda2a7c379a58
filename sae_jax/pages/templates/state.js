// What is shown is what the fragment of the address says: links and the back button follow.
const listeners = [];
let state = {}, read = null;

function readState() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

function fragmentOf(changes) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...state, ...changes })) {
    if (value !== "" && value !== undefined && value !== null) words.set(name, value);
  }
  return `#${words}`;
}

// A step that the back button takes back; without one where `quietly`, as while somebody types.
function go(changes, quietly = false) {
  const fragment = fragmentOf(changes);
  if (fragment === location.hash) return;
  // Whole, since within another page, as of a notebook, a fragment alone leads to one of that page; so do links.
  if (quietly) location.replace(location.href.split("#")[0] + fragment);
  else location.hash = fragment;
  // At once, since the browser's event comes later than a key that is held down.
  changed();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  location.hash = link.getAttribute("href");
});

function onChange(listener) {
  listeners.push(listener);
}

function changed() {
  if (location.hash === read) return;
  read = location.hash;
  const before = state;
  state = readState();
  for (const listener of listeners) listener(state, before);
}

// An element with attributes, handlers (on...) and children; text is never read as HTML.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function choice(label, options, value, choose) {
  const list = element("select", { onchange: (event) => choose(event.target.value) });
  for (const [key, text] of options) list.append(element("option", { value: key, selected: String(key) === String(value) }, text));
  return element("label", {}, label, list);
}

// In place of what stood there; whoever was at a control is at the one of its name again.
function replace(place, ...children) {
  const held = place.contains(document.activeElement) && document.activeElement.closest("label")?.firstChild.textContent;
  place.replaceChildren(...children);
  [...place.querySelectorAll("label")].find((label) => label.firstChild.textContent === held)?.querySelector("select, input")?.focus();
}
