// Charts by Bokeh in the colours of the page; colours and marks that can be told apart by colour-blind readers.
const ON_LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C6BB1"];
const ON_DARK = ["#56B4E9", "#E69F00", "#2FBF8F", "#E59AC2", "#F0E442", "#FF7A33", "#B0B0B0", "#B79CE0"];
const DASHES = [[], [7, 3], [2, 2], [9, 3, 2, 3], [12, 4], [4, 2, 1, 2], [1, 3], [6, 2, 2, 2]];
const MARKS = ["circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star", "plus"];
const ANCHORS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const VIRIDIS = shades(ANCHORS, 128);

function shades(anchors, count) {
  const parts = anchors.map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  return range(count).map((index) => {
    const place = (index / (count - 1)) * (parts.length - 1), low = Math.min(Math.floor(place), parts.length - 2);
    const mixed = parts[low].map((value, part) => Math.round(value + (place - low) * (parts[low + 1][part] - value)));
    return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  });
}

function tint(place) {
  return (isDark() ? ON_DARK : ON_LIGHT)[place % 8];
}

// From the least number over 0, which is as the ground is, to the largest.
function diverging() {
  return shades([tint(0), colour("card"), tint(1)], 255);
}

function isDark() {
  return (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Labels are broken where they would be longer than the axis, of about 7 pixels a letter.
function figure({ height = 260, x, y, ...more }) {
  const [ink, soft, line] = ["ink", "soft", "line"].map(colour);
  const made = Bokeh.Plotting.figure({
    height, sizing_mode: "stretch_width", tools: "pan,box_zoom,reset", toolbar_location: null, background_fill_color: null,
    border_fill_color: null, outline_line_color: line, min_border_right: 12, ...more,
  });
  for (const [axes, label, most] of [[made.xaxes, x, 46], [made.yaxes, y, Math.floor((height - 70) / 6)]]) {
    for (const axis of axes) {
      axis.axis_label = label ? plain(wrapped(label, most)) : null;
      Object.assign(axis, { axis_label_text_color: ink, major_label_text_color: ink, axis_label_text_font_style: "normal",
        axis_line_color: soft, major_tick_line_color: soft, minor_tick_line_color: null, axis_label_text_font_size: "12px" });
    }
  }
  for (const grid of [...made.xgrids, ...made.ygrids]) grid.grid_line_color = line;
  made.toolbar.logo = null;
  return made;
}

// Words as they are: what looks like TeX would have a library fetched.
function plain(text) {
  return new Bokeh.PlainText({ text });
}

// Below a chart, in as many columns of names as its width has room for.
function legendIn(made, entries, width) {
  const [ink, line] = ["ink", "line"].map(colour);
  const items = entries.map(([name, renderers]) => new Bokeh.LegendItem({ label: { value: cut(name, 44) }, renderers }));
  const longest = Math.max(...entries.map(([name]) => cut(name, 44).length));
  const ncols = Math.max(1, Math.min(entries.length, Math.floor(width / (longest * 6.2 + 36))));
  const legend = new Bokeh.Legend({ items, orientation: "horizontal", click_policy: "hide", background_fill_color: null,
    border_line_color: line, label_text_color: ink, label_text_font_size: "11px", spacing: 8, padding: 4, margin: 4,
    ncols, location: "center" });
  made.add_layout(legend, "below");
  made.height += 26 * (Math.ceil(entries.length / ncols) - 1);
}

function cut(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}\u2026` : text;
}

function wrapped(text, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (`${lines.at(-1)} ${word}`.length > most && lines.at(-1)) lines.push(word);
    else lines[lines.length - 1] = `${lines.at(-1)} ${word}`.trim();
  }
  return lines.join("\n");
}

function hover(made, renderers, tooltips, mode = "mouse") {
  made.add_tools(new Bokeh.HoverTool({ renderers, tooltips, mode }));
}

function colourBar(made, mapper) {
  made.add_layout(new Bokeh.ColorBar({ color_mapper: mapper, width: 10, background_fill_color: null, major_label_text_color: colour("ink"),
    bar_line_color: colour("line"), padding: 4, formatter: new Bokeh.BasicTickFormatter({ power_limit_low: -5 }) }), "right");
}

function source(data) {
  return new Bokeh.ColumnDataSource({ data });
}

// A card with a title, buttons to download what it shows, and a place for a chart; `draw` is called as it is shown.
function card({ title, alt, rows, focusable = false, role = focusable ? "application" : "img", picture = true, note }) {
  const plot = element("div", { class: "plot", role, "aria-label": alt, tabindex: focusable ? 0 : null });
  const made = element("figure", { class: "card" }, element("div", { class: "head" }, element("h3", {}, title), downloads(title, picture && plot, rows)),
    plot, note ? element("figcaption", { class: "note" }, note) : null);
  made.plot = plot;
  return made;
}

function downloads(title, plot, rows) {
  const button = (kind, onclick) => element("button", { type: "button", class: "small", "aria-label": `download ${title} as ${kind}`, onclick }, kind);
  return element("span", { class: "tools" }, plot ? button("PNG", () => savePicture(plot, title)) : null, button("CSV", () => saveTable(rows(), title)));
}

// Arrow keys move among rows and columns from where `at` says, Home and End to the ends of a row, Enter opens.
function arrowKeys(plot, rows, columns, at, move, open) {
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity] }[event.key];
    if (event.key === "Enter") open();
    if (!step) return;
    event.preventDefault();
    const now = at(), clip = (value, count) => Math.max(0, Math.min(count - 1, value));
    move(clip(now.row + step[0], rows), clip(now.column + step[1], columns));
  });
}

async function draw(plot, made) {
  plot.view?.remove();
  plot.replaceChildren();
  plot.view = await Bokeh.Plotting.show(made, plot);
  return plot.view;
}

// Where a click on a chart lies in its own numbers; nothing outside of its frame.
function pointOf(view, event) {
  const box = view.el.getBoundingClientRect(), { frame } = view;
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  if (!frame.bbox.contains(x, y)) return null;
  return { x: frame.x_scale.invert(x), y: frame.y_scale.invert(y), to: (a, b) => [frame.x_scale.compute(a) - x, frame.y_scale.compute(b) - y] };
}

function isWide(values) {
  const finite = values.filter((value) => Number.isFinite(value));
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  return finite.length > 1 && low > 0 && high > 5 * low;
}
