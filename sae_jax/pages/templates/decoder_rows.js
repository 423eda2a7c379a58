// Decoder rows: pictures where samples are images, else a heat map of a lane's, and a chart of one unit's.
const MOST_TILES = 1024, MOST_ROWS = 256;

// Weights of a unit: a byte is 128 + 127 times the share of the largest weight of its row.
function weightsOf(run, lane, unit) {
  const size = lane.rows.shape[1], largest = run.read(lane.largest_weights)[unit];
  return Array.from(run.read(lane.rows).subarray(unit * size, (unit + 1) * size), (byte) => ((byte - 128) / 127) * largest);
}

function weightTable(run, lane, units) {
  const written = (unit) => weightsOf(run, lane, unit).map((weight) => Number(weight.toPrecision(4)));
  return [["unit", ...range(lane.rows.shape[1]).map((at) => `${alongOf(run, lane)} ${at}`)], ...units.map((unit) => [unit, ...written(unit)])];
}

function alongOf(run, lane) {
  return lane.shape ? "pixel" : run.along;
}

const ROUNDED = "Weights, also those of the CSV, are within 0.4% of the largest one of their row.";

// All of a lane's that have room, and which ones these are; a click on one opens its unit.
function rowsCard(run, cell, seed, side, s) {
  const lane = laneAt(run, cell, seed);
  if (!lane?.rows) return null;
  const units = lane.rows.shape[0], most = lane.shape ? MOST_TILES : MOST_ROWS;
  const first = most * (range(Math.ceil(units / most)).includes(Number(s.part)) ? Number(s.part) : 0), shown = Math.min(units - first, most);
  const which = shown < units ? `units ${first} to ${first + shown - 1} of ${units}` : `${units} units`;
  const words = lane.shape ? `Decoder rows of ${which} as pictures of ${lane.shape.join(" by ")} pixels.`
    : `Heat map of the decoder rows of ${which}, each over ${lane.rows.shape[1]} ${run.along}s.`;
  const made = card({ title: `Decoder rows of seed ${run.seeds[seed]}`, rows: () => weightTable(run, lane, range(units)), focusable: true,
    alt: `${words} Arrow keys move from one to the next, Enter opens its unit.`,
    note: lane.shape ? `Each is scaled to its own largest weight. Click one for its unit. ${ROUNDED}` : `Every row is a unit; click it for more of the unit. ${ROUNDED}` });
  const status = element("p", { class: "facts", role: "status", "aria-live": "polite" }, words);
  made.insertBefore(status, made.plot.nextSibling);
  if (shown < units) {
    const parts = range(Math.ceil(units / most)).map((part) => [part, `${part * most} to ${Math.min(units, (part + 1) * most) - 1}`]);
    made.insertBefore(choice("units", parts, first / most, (value) => go({ part: value }, true)), made.plot);
  }
  const open = (unit) => go({ view: "units", run: side.run, cell: placesOf(run, cell).join("-"), seed, unit });
  (lane.shape ? tiles : rowsHeatmap)(run, lane, made, range(shown).map((at) => first + at), status, open);
  return made;
}

function tiles(run, lane, made, units, status, open) {
  const [height, width] = lane.shape, bytes = run.read(lane.rows), across = Math.ceil(Math.sqrt(units.length)), down = Math.ceil(units.length / across);
  const canvas = element("canvas", { class: "rows", width: across * (width + 1) + 1, height: down * (height + 1) + 1 });
  canvas.style.width = `${Math.max(canvas.width, Math.min(420, canvas.width * 6))}px`;
  const brush = canvas.getContext("2d");
  const corner = (at) => [(at % across) * (width + 1), Math.floor(at / across) * (height + 1)];
  units.forEach((unit, at) => brush.putImageData(greyImage(bytes, unit * height * width, height, width), corner(at)[0] + 1, corner(at)[1] + 1));
  const cursor = element("i", { class: "cursor", hidden: true });
  let chosen = 0;
  const mark = (at) => {
    chosen = Math.min(at, units.length - 1);
    const [x, y] = corner(chosen), part = (value, whole) => `${(100 * value) / whole}%`;
    Object.assign(cursor.style, { left: part(x, canvas.width), top: part(y, canvas.height), width: part(width + 2, canvas.width), height: part(height + 2, canvas.height) });
    cursor.hidden = false;
    status.textContent = `Unit ${units[chosen]}`;
  };
  arrowKeys(made.plot, down, across, () => ({ row: Math.floor(chosen / across), column: chosen % across }), (row, column) => mark(row * across + column), () => open(units[chosen]));
  canvas.addEventListener("click", (event) => {
    const scale = canvas.width / canvas.clientWidth;
    const at = Math.floor((event.offsetY * scale) / (height + 1)) * across + Math.floor((event.offsetX * scale) / (width + 1));
    if (at < units.length) open(units[at]);
  });
  made.plot.append(element("div", { class: "tiles" }, canvas, cursor));
  made.show = () => {};
}

// Colours end at a weight that only a tenth of the lane's units exceed, so that a few large ones leave the others in sight.
function rowsHeatmap(run, lane, made, units, status, open) {
  made.classList.add("whole");
  const size = lane.rows.shape[1], weights = units.map((unit) => weightsOf(run, lane, unit));
  const sorted = [...run.read(lane.largest_weights)].filter((largest) => largest > 0).sort((a, b) => a - b);
  const high = sorted[Math.ceil(0.9 * sorted.length) - 1] ?? 1;
  const at = { row: 0, column: 0 }, cursor = source({ x: [], y: [] });
  let each = 1;
  const largestOf = (row, column) => range(Math.min(each, size - column * each)).map((place) => column * each + place)
    .reduce((best, place) => (Math.abs(weights[row][place]) > Math.abs(weights[row][best]) ? place : best), column * each);
  const tell = (row, column) => {
    const input = largestOf(row, column);
    status.textContent = `Unit ${units[row]}, ${run.along} ${input}: weight ${short(weights[row][input])}`;
  };
  const mark = (row, column) => {
    Object.assign(at, { row, column });
    cursor.data = { x: [(size - 1) / 2], y: [units[row]] };
    tell(row, column);
  };
  const caption = made.querySelector("figcaption"), note = caption.textContent;
  made.show = async () => {
    each = Math.ceil(size / Math.max(60, made.plot.clientWidth - 120));
    const columns = Math.ceil(size / each), values = new Float32Array(units.length * columns);
    units.forEach((_, row) => range(columns).forEach((column) => { values[row * columns + column] = weights[row][largestOf(row, column)]; }));
    const larger = sorted.at(-1) > high ? ": larger weights have the colours of the ends" : "";
    caption.textContent = `Colours reach from ${short(-high)} over 0 to ${short(high)}${larger}. ${each > 1 ? `A pixel is the largest weight of ${each} neighbours. ` : ""}${note}`;
    const image = Bokeh.require("core/util/ndarray").ndarray(values, { dtype: "float32", shape: [units.length, columns] });
    const view = await draw(made.plot, rowsFigure(run, units, size, image, columns * each, high, cursor));
    const placeOf = (event) => {
      const point = pointOf(view, event);
      return point && [Math.round(point.y) - units[0], Math.floor((point.x + 0.5) / each)];
    };
    made.plot.onclick = (event) => { const place = placeOf(event); if (place && weights[place[0]]) open(units[place[0]]); };
    made.plot.onmousemove = (event) => { const place = placeOf(event); if (place && weights[place[0]] && place[1] < columns) tell(...place); };
    arrowKeys(made.plot, units.length, columns, () => at, mark, () => open(units[at.row]));
  };
}

function rowsFigure(run, units, size, image, width, high, cursor) {
  const count = units.length, [first, last] = [units[0], units[count - 1]];
  const made = figure({
    height: Math.max(200, Math.min(100 + count * 14, 560)), x: run.along, y: "unit", tools: "",
    x_range: new Bokeh.Range1d({ start: -0.5, end: size - 0.5 }), y_range: new Bokeh.Range1d({ start: last + 0.5, end: first - 0.5 }),
  });
  for (const lines of [...made.xgrids, ...made.ygrids]) lines.visible = false;
  for (const axis of [...made.xaxes, ...made.yaxes]) axis.ticker.min_interval = 1;
  const mapper = new Bokeh.LinearColorMapper({ palette: diverging(), low: -high, high });
  made.image(mapper, { field: "image" }, -0.5, first - 0.5, width, count, { source: source({ image: [image] }) });
  made.rect({ field: "x" }, { field: "y" }, size, 1, { source: cursor, fill_color: null, line_color: colour("ink"), line_width: 2 });
  colourBar(made, mapper);
  return made;
}

// One unit's: a picture beside its name, or a chart.
function unitRow(run, lane, unit) {
  const title = `Decoder row of unit ${unit}`, rows = () => weightTable(run, lane, [unit]);
  if (lane.shape) {
    const size = product(lane.shape), picture = element("div", {}, pictureOf(run.read(lane.rows), unit * size, lane.shape, 150, `decoder row of unit ${unit}, ${lane.shape.join(" by ")} pixels`));
    return element("div", {}, picture, downloads(title, picture, rows));
  }
  const weights = weightsOf(run, lane, unit), along = run.along;
  const first = range(weights.length).sort((a, b) => Math.abs(weights[b]) - Math.abs(weights[a])).slice(0, 5).map((at) => `${along} ${at} (${short(weights[at])})`).join(", ");
  const made = card({ title, rows, note: `Largest: ${first}. ${ROUNDED}`, alt: `Bars of the ${weights.length} weights of the decoder row of unit ${unit}. Largest: ${first}.` });
  made.show = () => {
    const drawn = figure({ height: 220, x: along, y: "weight" });
    drawn.xaxes[0].ticker.min_interval = 1;
    const data = source({ at: range(weights.length), left: range(weights.length).map((at) => at - 0.4), right: range(weights.length).map((at) => at + 0.4),
      weight: weights, text: weights.map((weight) => short(weight)), colour: weights.map((weight) => tint(weight < 0 ? 0 : 1)) });
    const bars = drawn.quad({ field: "left" }, { field: "right" }, 0, { field: "weight" }, { source: data, fill_color: { field: "colour" }, line_color: { field: "colour" } });
    hover(drawn, [bars], [[along, "@at"], ["weight", "@text"]], "vline");
    return draw(made.plot, drawn);
  };
  return made;
}
