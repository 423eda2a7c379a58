// The list of a lane's units; only those in sight are in the document, so that thousands scroll.
const ROW = 40;
const COLUMNS = [
  ["unit", "unit", (unit) => unit.number, ""],
  ["density", "density", (unit) => unit.density, ""],
  ["mean", "mean activation", (unit) => unit.mean, ""],
  ["largest", "largest", (unit) => unit.largest, "wide"],
  ["match", "match", (unit) => unit.match, "wide"],
];

// Shares of the held-out samples on which units are active: counted ones, or else the measure, whose mean may be rounded.
function densitiesOf(run, lane) {
  return run.read(lane?.detail && (lane.detail.whole || !lane.rate) ? lane.detail.density : lane?.rate);
}

// What is known of every unit of a lane, as one object each.
function unitsOf(run, lane) {
  const detail = lane.detail, [means, largest] = [lane.mean, lane.largest].map(run.read), densities = densitiesOf(run, lane);
  const [tops, matches] = [detail?.top_codes, detail?.match_cosines].map(run.read), seeds = detail?.seeds.length ?? 0;
  return range(lane.units).map((number) => {
    const density = densities ? densities[number] : NaN;
    const cosines = matches ? [...matches.subarray(number * seeds, (number + 1) * seeds)].filter(Number.isFinite) : [];
    return {
      number, density, mean: means ? means[number] : NaN, dead: density === 0, dense: density > run.dense,
      largest: largest ? largest[number] : tops ? tops[number * detail.top_codes.shape[1]] : NaN,
      match: cosines.length ? cosines.reduce((a, b) => a + b, 0) / cosines.length : NaN,
    };
  });
}

function sortedUnits(units, s) {
  const [name, , value] = COLUMNS.find(([key]) => key === (s.sort || "density")) || COLUMNS[1];
  const up = s.order ? s.order === "up" : name === "unit", sign = up ? 1 : -1;
  return [...units].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (Number.isFinite(x) !== Number.isFinite(y)) return Number.isFinite(x) ? -1 : 1;
    return sign * ((x || 0) - (y || 0)) || a.number - b.number;
  });
}

// A number finds that unit, "dead" and "dense" those, anything else the units with such a word among their top samples.
function foundUnits(units, run, lane, words) {
  const text = words.trim().toLowerCase();
  if (!text) return units;
  if (/^\d+$/.test(text)) return units.filter((unit) => String(unit.number) === text);
  if (text === "dead" || text === "dense") return units.filter((unit) => unit[text]);
  const names = lane.detail && run.samples[lane.detail.samples].names;
  if (!names) return [];
  const samples = samplesOf(run, lane), top = run.read(lane.detail.top), each = lane.detail.top.shape[1];
  return units.filter((unit) => range(each).some((rank) => (names[samples.place.get(top[unit.number * each + rank])] ?? "").toLowerCase().includes(text)));
}

function samplesOf(run, lane) {
  const samples = lane.detail && run.samples[lane.detail.samples];
  if (samples && !samples.place) {
    samples.place = new Map([...run.read(samples.numbers)].map((number, place) => [number, place]));
    samples.bytes = run.read(samples.pictures);
  }
  return samples;
}

function unitList(run, lane, pick, sort) {
  const bytes = lane.shape && run.read(lane.rows), inside = element("div", { role: "presentation" }), rows = new Map();
  const list = element("div", { class: "list", role: "listbox", tabindex: 0, "aria-label": "units; arrow keys move, Home and End jump" }, inside);
  const heads = element("div", { class: "heads" }, bytes ? element("span") : null, COLUMNS.map(([name, label, , hide]) =>
    element("button", { type: "button", class: hide, "data-sort": name, onclick: () => sort(name) }, label)), element("span", { class: "note" }, "flags"));
  let units = [], chosen = -1;
  function rowOf(place) {
    const unit = units[place], flags = [unit.dead && "dead", unit.dense && "dense"].filter(Boolean).join(" ");
    const picture = bytes ? pictureOf(bytes, unit.number * product(lane.shape), lane.shape, 34, `decoder row of unit ${unit.number}`) : null;
    const bar = Number.isFinite(unit.density) ? Math.round(100 * Math.min(1, Math.sqrt(unit.density))) : 0;
    return element("div", { class: "row", role: "option", id: `unit-${unit.number}`, "aria-selected": String(unit.number === chosen), style: `top:${place * ROW}px`,
      "aria-posinset": place + 1, "aria-setsize": units.length, onclick: () => pick(unit.number) },
      picture, element("span", {}, String(unit.number)),
      element("span", { class: "density" }, element("i", { style: `width:${bar}%` }), element("b", {}, percent(unit.density))),
      element("span", {}, short(unit.mean)), element("span", { class: "wide" }, short(unit.largest)), element("span", { class: "wide" }, short(unit.match, 2)),
      element("span", {}, flags ? element("span", { class: "flag" }, flags) : ""));
  }
  function fill() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 6), last = Math.min(units.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 6);
    for (const [place, row] of rows) if (place < first || place >= last) { row.remove(); rows.delete(place); }
    for (let place = first; place < last; place += 1) {
      if (!rows.has(place)) { rows.set(place, rowOf(place)); inside.append(rows.get(place)); }
    }
  }
  const update = (listed, s) => {
    units = listed;
    rows.clear();
    inside.replaceChildren();
    inside.style.height = `${Math.max(units.length * ROW, ROW)}px`;
    list.style.maxHeight = `calc(${inside.style.height} + 1px)`;
    if (!units.length) inside.append(element("p", { class: "note" }, "No unit is found."));
    const key = s.sort || "density", up = s.order ? s.order === "up" : key === "unit";
    for (const head of heads.querySelectorAll("button")) {
      const sorted = head.dataset.sort === key;
      const label = COLUMNS.find(([name]) => name === head.dataset.sort)[1];
      head.dataset.order = sorted ? (up ? "up" : "down") : "";
      head.setAttribute("aria-label", `sort by ${label}${sorted ? `, now ${up ? "ascending" : "descending"}` : ""}`);
      head.textContent = `${label}${sorted ? (up ? " \u25b2" : " \u25bc") : ""}`;
    }
    fill();
  };
  const mark = (number) => {
    chosen = number;
    const place = units.findIndex((unit) => unit.number === number);
    if (place >= 0) {
      const top = place * ROW;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
      list.setAttribute("aria-activedescendant", `unit-${number}`);
    }
    for (const [, row] of rows) row.remove();
    rows.clear();
    fill();
  };
  list.addEventListener("scroll", fill, { passive: true });
  list.addEventListener("keydown", (event) => {
    const place = units.findIndex((unit) => unit.number === chosen), page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const next = { ArrowDown: place + 1, ArrowUp: place - 1, PageDown: place + page, PageUp: place - page, Home: 0, End: units.length - 1 }[event.key];
    if (next === undefined || !units.length) return;
    event.preventDefault();
    pick(units[Math.max(0, Math.min(units.length - 1, next))].number);
  });
  return { heads, list, update, mark, fill };
}
