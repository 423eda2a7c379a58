// Measures against sparsity: a point for every cell, with bars of the standard deviation over seeds.
function frontierView(runs, s) {
  const shared = runs[0], names = shared.measures.map((measure) => [measure.name, measure.label]);
  const x = measureOf(shared, s.fx) || measureOf(shared, shared.frontier.x) || shared.measures[0];
  const others = shared.measures.filter((measure) => measure !== x);
  const y = measureOf(shared, s.fy) || measureOf(shared, shared.frontier.y[0]) || others[0] || x;
  const axes = shared.axes.map((axis) => axis.name);
  const along = axes.includes(s.along) ? s.along : shared.frontier.along;
  const controls = element("div", { class: "controls" }, choice("across", names, x.name, (value) => go({ fx: value })), choice("up", names, y.name, (value) => go({ fy: value })),
    axes.length > 1 ? choice("lines along", [...(shared.frontier.along ? [] : [["", "no axis"]]), ...axes.map((axis) => [axis, axis])], along, (value) => go({ along: value })) : null);
  const series = runs.flatMap((run, place) => seriesOf(run, place, runs.length, x.name, y.name, along));
  const points = series.flatMap((one) => one.points);
  const rows = () => [["run", "cell", `${x.name} mean`, `${x.name} sd`, `${y.name} mean`, `${y.name} sd`, "seeds"],
    ...points.map((point) => [point.run.name, placesOf(point.run, point.cell).map((place, axis) => `${point.run.axes[axis].name} ${exactly(point.run.axes[axis], place)}`).join(", "), point.x.mean, point.x.deviation, point.y.mean, point.y.deviation, point.y.count])];
  const made = card({ title: `${y.label} against ${x.label}`, rows, focusable: true,
    note: `Means over seeds; bars are the ${shared.deviation} over seeds. Click a point for its cell; click a name below to hide its line.`,
    alt: `${y.label} against ${x.label}: ${points.length} cells in ${series.length} series. Arrow keys move from point to point, Enter opens the cell.` });
  const status = element("p", { class: "facts", role: "status", "aria-live": "polite" });
  made.append(status);
  const cursor = source({ x: [], y: [] });
  const open = (point) => {
    const [cell, seed] = runs.indexOf(point.run) ? ["bcell", "bseed"] : ["cell", "seed"];
    go({ view: "grid", [cell]: placesOf(point.run, point.cell).join("-"), [seed]: "" });
  };
  let at = -1;
  made.plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" && points[at]) open(points[at]);
    if (!step || !points.length) return;
    event.preventDefault();
    at = (at + step + points.length) % points.length;
    cursor.data = { x: [points[at].x.mean], y: [points[at].y.mean] };
    status.textContent = `${cellName(points[at].run, points[at].cell)}: ${x.label} ${withDeviation(points[at].x)}, ${y.label} ${withDeviation(points[at].y)}`;
  });
  made.show = async () => {
    const view = await draw(made.plot, frontierFigure(series, x, y, cursor, made.plot.clientWidth));
    made.plot.onclick = (event) => {
      const place = pointOf(view, event);
      const near = place && points.map((point) => [Math.hypot(...place.to(point.x.mean, point.y.mean)), point]).sort((a, b) => a[0] - b[0])[0];
      if (near && near[0] < 14) open(near[1]);
    };
  };
  const view = element("div", {}, controls, points.length ? made : element("p", { class: "note" }, "No cell has both of these measures."));
  view.show = () => points.length && made.show();
  return view;
}

// Cells that differ along one axis alone, in its order: each such line has a colour, a dash and a mark. Where no axis
// holds numbers, every cell stands alone.
function seriesOf(run, place, runs, x, y, along) {
  const axis = run.axes.findIndex((one) => one.name === along), lines = new Map();
  const [across, up] = [measureOf(run, x), measureOf(run, y)];
  if (!across || !up) return [];
  for (const cell of range(run.cells)) {
    const places = placesOf(run, cell), key = places.filter((_, index) => index !== axis).join("-");
    const point = { run, cell, x: spread(run, across, [cell]), y: spread(run, up, [cell]) };
    if (!Number.isFinite(point.x.mean) || !Number.isFinite(point.y.mean)) continue;
    const rest = run.axes.map((one, index) => (index === axis ? "" : `${one.name} ${one.values[places[index]]}`)).filter(Boolean).join(", ");
    const name = [runs > 1 ? run.name : "", rest].filter(Boolean).join(": ") || run.name;
    if (!lines.has(key)) lines.set(key, { name, points: [], place: lines.size + 4 * place });
    lines.get(key).points.push(point);
  }
  return [...lines.values()];
}

function frontierFigure(series, x, y, cursor, width) {
  const made = figure({ height: 480, x: x.label, y: y.label });
  const entries = [];
  for (const one of series) {
    const look = one.place, shade = tint(look), values = (part) => one.points.map(part);
    const data = source({
      x: values((point) => point.x.mean), y: values((point) => point.y.mean),
      cell: values((point) => cellName(point.run, point.cell)), tx: values((point) => withDeviation(point.x)), ty: values((point) => withDeviation(point.y)),
    });
    const line = made.line({ field: "x" }, { field: "y" }, { source: data, line_color: shade, line_dash: DASHES[Math.floor(look / 8 + look) % 8], line_width: 1.3 });
    const marks = made.scatter({ field: "x" }, { field: "y" }, { source: data, marker: MARKS[(look + 3 * Math.floor(look / 8)) % 8], size: 9, fill_color: shade, line_color: shade });
    const bars = [];
    for (const [part, other] of [["x", "y"], ["y", "x"]]) {
      const finite = one.points.filter((point) => Number.isFinite(point[part].deviation));
      const ends = (sign) => finite.map((point) => point[part].mean + sign * point[part].deviation), same = finite.map((point) => point[other].mean);
      const [low, high] = [ends(-1), ends(1)];
      bars.push(part === "x" ? made.segment(low, same, high, same, { line_color: shade }) : made.segment(same, low, same, high, { line_color: shade }));
    }
    hover(made, [marks], [["cell", "@cell"], [x.name, "@tx"], [y.name, "@ty"]]);
    entries.push([one.name, [line, marks, ...bars]]);
  }
  made.scatter({ field: "x" }, { field: "y" }, { source: cursor, marker: "circle", size: 18, fill_color: null, line_color: colour("ink"), line_width: 3 });
  if (entries.length <= 24) legendIn(made, entries, width);
  return made;
}
