// The grid of a run over any two of its axes; the other axes stand at the chosen cell, or are averaged over.
function axesShown(run, s) {
  const names = run.axes.map((axis) => axis.name);
  const y = names.includes(s.y) ? s.y : names.find((name) => name !== s.x);
  const x = names.includes(s.x) && s.x !== y ? s.x : names.find((name) => name !== y);
  return { x: names.indexOf(x), y: names.indexOf(y), names };
}

function chosenCell(run, text) {
  const places = String(text ?? "").split("-").map(Number);
  const right = text && places.length === run.sizes.length && places.every((place, axis) => Number.isInteger(place) && place >= 0 && place < run.sizes[axis]);
  return right ? cellAt(run, places) : run.first;
}

// For every row and column the cells behind one field of the heatmap.
function fieldsOf(run, s, cell) {
  const shown = axesShown(run, s), over = (s.over || "").split(",");
  const fixed = placesOf(run, cell);
  const spans = run.sizes.map((size, axis) => (over.includes(shown.names[axis]) ? range(size) : [fixed[axis]]));
  const [rows, columns] = [shown.y, shown.x].map((axis) => (axis < 0 ? [0] : range(run.sizes[axis])));
  const fields = [];
  for (const row of rows) {
    for (const column of columns) {
      const choices = spans.map((span, axis) => (axis === shown.y ? [row] : axis === shown.x ? [column] : span));
      const cells = choices.reduce((combinations, span) => combinations.flatMap((places) => span.map((place) => [...places, place])), [[]]);
      const chosen = fixed.map((place, axis) => (axis === shown.y ? row : axis === shown.x ? column : place));
      fields.push({ row, column, cells: cells.map((places) => cellAt(run, places)), cell: cellAt(run, chosen) });
    }
  }
  return { ...shown, rows: rows.length, columns: columns.length, fields, averaged: over.filter((name) => shown.names.includes(name)) };
}

function limitsOf(parts) {
  const means = parts.flatMap(({ values }) => values.map((value) => value.mean)).filter(Number.isFinite);
  const [low, high] = [Math.min(...means), Math.max(...means)];
  return means.length ? [low, high > low ? high : low + 1] : [0, 1];
}

function heatmapCard(run, measure, grid, values, limits, pick) {
  const title = `${run.name}: ${measure.label}`;
  const named = (axis) => (axis < 0 ? "" : run.axes[axis].name);
  const words = grid.averaged.length ? `, means over ${grid.averaged.join(" and ")}` : "";
  const alt = `Heatmap of ${measure.label}, means over seeds${words}; rows ${named(grid.y) || "one"}, columns ${named(grid.x) || "one"}. ` +
    "Arrow keys move from cell to cell, Enter opens the units of one.";
  const rows = () => [[named(grid.y) || "row", named(grid.x) || "column", "mean", "standard deviation", "seeds"],
    ...grid.fields.map((field, index) => [grid.y < 0 ? "" : exactly(run.axes[grid.y], field.row), grid.x < 0 ? "" : exactly(run.axes[grid.x], field.column),
      values[index].mean, values[index].deviation, values[index].count])];
  const made = card({ title, alt, rows, focusable: true, note: `Mean over seeds${words}. Click a cell for its curves and units.` });
  const status = element("p", { class: "facts", role: "status", "aria-live": "polite" });
  made.append(status);
  const cursor = source({ x: [], y: [] });
  made.mark = (cell) => {
    const at = grid.fields.findIndex((field) => field.cell === cell);
    const field = grid.fields[Math.max(at, 0)];
    made.at = field;
    cursor.data = { x: [field.column], y: [field.row] };
    const number = values[Math.max(at, 0)];
    status.textContent = `${cellName(run, cell)}: ${measure.label} ${number.count ? withDeviation(number) : absence(run, cell)}`;
  };
  made.show = async () => {
    const view = await draw(made.plot, heatmapFigure(run, grid, values, limits, cursor, made.plot.clientWidth));
    made.plot.onclick = (event) => {
      const point = pointOf(view, event);
      const field = point && grid.fields.find((one) => one.column === Math.round(point.x) && one.row === Math.round(point.y));
      if (field) pick(field.cell);
    };
  };
  const move = (row, column) => pick(grid.fields.find((field) => field.row === row && field.column === column).cell);
  arrowKeys(made.plot, grid.rows, grid.columns, () => made.at, move, () => pick(made.at.cell, true));
  return made;
}

function heatmapFigure(run, grid, values, [low, high], cursor, width) {
  const label = (axis) => (axis < 0 ? null : axisLabel(run.axes[axis]));
  const made = figure({
    height: Math.max(190, Math.min(90 + grid.rows * 38, 560)), x: label(grid.x), y: label(grid.y), tools: "",
    x_range: new Bokeh.Range1d({ start: -0.5, end: grid.columns - 0.5 }), y_range: new Bokeh.Range1d({ start: grid.rows - 0.5, end: -0.5 }),
  });
  for (const [axis, which] of [[made.xaxes[0], grid.x], [made.yaxes[0], grid.y]]) labelTicks(axis, which < 0 ? [""] : run.axes[which].values, width);
  for (const lines of [...made.xgrids, ...made.ygrids]) lines.visible = false;
  const mapper = new Bokeh.LinearColorMapper({ palette: VIRIDIS, low, high, nan_color: "rgba(128,128,128,0.15)" });
  const missing = (field) => absence(run, field.cell);
  const ground = colour("ink");
  const data = source({
    x: grid.fields.map((field) => field.column), y: grid.fields.map((field) => field.row), value: values.map((value) => value.mean),
    text: values.map((value, index) => (value.count ? short(value.mean, 2) : missing(grid.fields[index]))),
    ink: values.map((value) => (value.count ? (value.mean > (low + high) / 2 ? "black" : "white") : ground)),
    cell: grid.fields.map((field) => cellName(run, field.cell)), mean: values.map((value) => withDeviation(value)),
  });
  const fields = made.rect({ field: "x" }, { field: "y" }, 0.98, 0.98, { source: data, fill_color: { field: "value", transform: mapper }, line_color: null });
  const room = (width - 130) / grid.columns;
  if (room > 7 * Math.max(...data.data.text.map((text) => text.length))) {
    made.text({ field: "x" }, { field: "y" }, { field: "text" }, { source: data, text_color: { field: "ink" }, text_align: "center",
      text_baseline: "middle", text_font_size: room > 60 ? "12px" : "10.5px" });
  }
  made.rect({ field: "x" }, { field: "y" }, 0.98, 0.98, { source: cursor, fill_color: null, line_color: "black", line_width: 5 });
  made.rect({ field: "x" }, { field: "y" }, 0.98, 0.98, { source: cursor, fill_color: null, line_color: "white", line_width: 2 });
  colourBar(made, mapper);
  hover(made, [fields], [["cell", "@cell"], ["mean", "@mean"]]);
  return made;
}

function axisLabel(axis) {
  return axis.label === axis.name ? axis.name : `${axis.name}: ${axis.label}`;
}

function labelTicks(axis, names, width) {
  const every = Math.ceil(names.length / Math.max(3, Math.min(20, Math.floor(width / 42))));
  const shown = range(names.length).filter((place) => place % every === 0);
  axis.ticker = new Bokeh.FixedTicker({ ticks: shown, minor_ticks: [] });
  axis.major_label_overrides = new Map(shown.map((place) => [place, plain(cut(names[place], 22))]));
}
