// The four parts of the page, and which of them is shown.
const runs = [];
const view = (name) => document.getElementById(`view-${name}`);
let grids = [];

function runAt(text) {
  return runs[Number(text)] ? Number(text) : 0;
}

// The run beside the first one: where none is named the next one, -1 for none.
function besideOf(s) {
  const current = runAt(s.run), other = s.beside === undefined ? (current === 0 ? 1 : 0) : Number(s.beside);
  return runs[other] && other !== current ? other : -1;
}

function renderGrid(s, fresh) {
  const sides = [{ run: runAt(s.run), cell: "cell", seed: "seed" }], other = besideOf(s);
  if (other >= 0) sides.push({ run: other, cell: "bcell", seed: "bseed" });
  const parts = sides.map((side) => {
    const run = runs[side.run], cell = chosenCell(run, s[side.cell]), grid = fieldsOf(run, s, cell);
    const measure = measureOf(run, s.measure) || measureOf(run, runs[sides[0].run].measures[0]?.name) || run.measures[0];
    return { side, run, cell, grid, measure, values: measure ? grid.fields.map((field) => spread(run, measure, field.cells)) : [] };
  });
  const key = JSON.stringify(parts.map(({ side, grid, measure }) => [side.run, measure?.name, grid.x, grid.y, grid.averaged, grid.fields[0].cell]));
  if (fresh || view("grid").key !== key) {
    view("grid").key = key;
    const alike = parts.every(({ measure }) => measure && measure.name === parts[0].measure.name), shared = limitsOf(parts);
    grids = parts.map((part) => {
      const pick = (cell, open) => go({ [part.side.cell]: placesOf(part.run, cell).join("-"), ...(open ? { view: "units", run: part.side.run, cell: placesOf(part.run, cell).join("-"), seed: "", unit: "" } : {}) });
      const heat = part.measure && part.run.cells > 1 ? heatmapCard(part.run, part.measure, part.grid, part.values, alike ? shared : limitsOf([part]), pick) : null;
      return { heat, place: element("div") };
    });
    const panes = grids.map(({ heat, place }, at) => element("div", { class: heat ? "pane" : "" }, heat ? element("div", {}, otherAxes(parts[at], s), heat) : null, place));
    replace(view("grid"), gridControls(parts[0], s), element("div", { class: parts.length > 1 ? "sides two" : "sides" }, panes));
    for (const { heat } of grids) heat?.show();
  }
  parts.forEach((part, at) => {
    grids[at].heat?.mark(part.cell);
    const panel = cellPanel(part.run, part.cell, s, part.side);
    replace(grids[at].place, panel);
    panel.show?.();
  });
}

function runChoices(s) {
  if (runs.length < 2) return [];
  const names = runs.map((run, at) => [at, run.name]);
  return [choice("run", names, runAt(s.run), (value) => go({ run: value, beside: "", cell: "", seed: "", bcell: "", unit: "" })),
    choice("beside it", [["none", "no other run"], ...names.filter(([at]) => at !== runAt(s.run))], besideOf(s) < 0 ? "none" : besideOf(s), (value) => go({ beside: value, bcell: "", bseed: "" }))];
}

function gridControls({ run, grid, measure }, s) {
  const axes = run.axes.map((axis) => [axis.name, axis.name]);
  return element("div", { class: "controls" }, runChoices(s),
    runs.every((one) => one.cells === 1) ? null : choice("measure", run.measures.map((one) => [one.name, one.label]), measure?.name, (value) => go({ measure: value })),
    axes.length > 1 ? [choice("rows", axes, grid.names[grid.y], (value) => go({ y: value, x: value === grid.names[grid.x] ? grid.names[grid.y] : grid.names[grid.x] })),
      choice("columns", axes, grid.names[grid.x], (value) => go({ x: value, y: value === grid.names[grid.y] ? grid.names[grid.x] : grid.names[grid.y] }))] : null);
}

function otherAxes({ side, run, cell, grid }, s) {
  const over = new Set(grid.averaged), places = placesOf(run, cell);
  const left = run.axes.map((axis, at) => [axis, at]).filter(([, at]) => at !== grid.x && at !== grid.y);
  if (!left.length) return null;
  return element("div", { class: "controls" }, left.map(([axis, at]) => choice(axis.name, [["mean", "mean of all"], ...axis.values.map((value, place) => [place, value])], over.has(axis.name) ? "mean" : places[at], (value) => {
    const now = placesOf(run, chosenCell(run, state[side.cell]));
    if (value === "mean") over.add(axis.name);
    else { over.delete(axis.name); now[at] = Number(value); }
    go({ over: [...over].join(","), [side.cell]: now.join("-"), [side.seed]: "" });
  })));
}

function renderUnits(s, fresh) {
  const at = runAt(s.run), run = runs[at], cell = chosenCell(run, s.cell), seed = chosenSeed(run, cell, s.seed), lane = laneAt(run, cell, seed);
  const here = view("units"), key = `${at} ${cell} ${seed}`;
  if (fresh || here.key !== key) {
    here.key = key;
    const controls = unitControls(run, cell, seed, s);
    here.units = lane ? unitsOf(run, lane) : [];
    here.place = element("div");
    here.browser = null;
    if (!lane?.units) {
      replace(here, controls, element("p", { class: "note" }, divergedAt(run, cell, seed) >= 0 ? `This lane diverged at step ${divergedAt(run, cell, seed)}: nothing is known of its units.` : "Nothing is known of the units of this lane."));
      return;
    }
    here.browser = unitList(run, lane, (number) => go({ unit: number }, true), (name) =>
      go({ sort: name, order: (state.sort || "density") === name && (state.order || (name === "unit" ? "up" : "down")) === "down" ? "up" : "down" }));
    here.count = element("p", { class: "facts", role: "status" });
    replace(here, controls, element("div", { class: lane.shape ? "browser" : "browser bare" }, element("div", { class: "card" }, here.count, here.browser.heads, here.browser.list), here.place));
    here.shown = null;
  }
  if (!here.browser) return;
  const order = JSON.stringify([s.sort, s.order, s.q]);
  if (here.shown !== order) {
    here.shown = order;
    here.listed = sortedUnits(foundUnits(here.units, run, lane, s.q || ""), s);
    here.browser.update(here.listed, s);
    const [dead, dense] = ["dead", "dense"].map((flag) => here.units.filter((unit) => unit[flag]).length);
    here.count.textContent = `${here.listed.length} of ${here.units.length} units; ${dead} dead, ${dense} dense (active on more than ${percent(run.dense)})`;
  }
  const unit = (s.unit && here.units[Number(s.unit)]) || here.listed[0];
  here.browser.mark(unit ? unit.number : -1);
  if (!unit) {
    here.place.replaceChildren(element("p", { class: "note" }, "The search finds no unit."));
    return;
  }
  const panel = unitPanel(run, cell, seed, lane, unit);
  here.place.replaceChildren(panel);
  panel.show();
}

function unitControls(run, cell, seed, s) {
  const places = placesOf(run, cell);
  const at = (axis, place) => places.map((value, index) => (index === axis ? Number(place) : value)).join("-");
  const search = element("input", { type: "search", value: s.q || "", placeholder: "number, word, dead or dense", oninput: (event) => go({ q: event.target.value, unit: "" }, true) });
  return element("div", { class: "controls" }, runs.length > 1 ? choice("run", runs.map((one, index) => [index, one.name]), runAt(s.run), (value) => go({ run: value, cell: "", seed: "", unit: "" })) : null,
    run.axes.map((axis, index) => choice(axis.name, axis.values.map((value, place) => [place, value]), places[index], (place) => go({ cell: at(index, place), seed: "", unit: "" }))),
    choice("seed", run.seeds.map((value, place) => [place, divergedAt(run, cell, place) >= 0 ? `${value} (diverged)` : place === run.bestSeeds[cell] ? `${value} (best)` : value]), seed, (value) => go({ seed: value, unit: "" })),
    element("label", {}, "search", search),
    element("label", {}, "\u00a0", element("button", { type: "button", onclick: () => saveTable([["unit", "density", "mean activation", "largest", "match", "dead", "dense"],
      ...view("units").listed.map((unit) => [unit.number, unit.density, unit.mean, unit.largest, unit.match, unit.dead, unit.dense])], `units of ${cellName(run, cell)} seed ${run.seeds[seed]}`) }, "Units as CSV")));
}

function renderFrontier(s) {
  const other = besideOf(s), shown = frontierView([runs[runAt(s.run)], ...(other >= 0 ? [runs[other]] : [])], s);
  replace(view("frontier"), ...(runs.length > 1 ? [element("div", { class: "controls" }, runChoices(s))] : []), shown);
  shown.show();
}

function render(s, fresh) {
  const name = ["grid", "units", "frontier", "about"].includes(s.view) ? s.view : "grid";
  for (const part of document.querySelectorAll(".view")) part.hidden = part.id !== `view-${name}`;
  for (const link of document.querySelectorAll("nav a")) {
    link.href = fragmentOf({ view: link.dataset.view });
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "grid") renderGrid(s, fresh);
  if (name === "units") renderUnits(s, fresh);
  if (name === "frontier") renderFrontier(s);
}

function startTheme() {
  const button = document.getElementById("theme");
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; label(); render(state, true); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { label(); render(state, true); });
  label();
}

async function start() {
  for (const part of document.querySelectorAll("script.run")) runs.push(await unpack(part.textContent));
  document.getElementById("busy").remove();
  startTheme();
  onChange((now) => render(now, false));
  addEventListener("hashchange", changed);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; render(state, true); } });
  changed();
  document.documentElement.dataset.ready = "true";
}

start();
