// One cell of the grid: its curves, decoder rows, mean activations and firing densities, of every seed.
function cellPanel(run, cell, s, side) {
  const seeds = range(run.seeds.length).filter((seed) => run.ends[cell * run.seeds.length + seed] !== -2);
  const seed = chosenSeed(run, cell, s[side.seed]);
  const panel = element("div", { class: "unit" });
  const facts = run.measures.map((measure) => element("tr", {}, element("th", { scope: "row" }, measure.label), element("td", {}, withDeviation(spread(run, measure, [cell]), run.seeds.length))));
  const open = element("button", { type: "button", onclick: () => go({ view: "units", run: side.run, cell: placesOf(run, cell).join("-"), seed, unit: "" }) },
    `Units of seed ${run.seeds[seed] ?? ""}`);
  const diverged = seeds.filter((one) => divergedAt(run, cell, one) >= 0).map((one) => `${run.seeds[one]} at step ${divergedAt(run, cell, one)}`);
  panel.append(element("div", { class: "card" }, element("div", { class: "head" }, element("h2", {}, cellName(run, cell)), seeds.length ? open : null),
    element("div", { class: "scroll" }, element("table", { "aria-label": `measures of ${cellName(run, cell)}` },
      element("tr", {}, element("th", { scope: "col" }, "measure"), element("th", { scope: "col" }, run.seeds.length > 1 ? `mean \u00b1 sd, ${run.seeds.length} seeds` : "one seed")), facts)),
    diverged.length ? element("p", { class: "warning" }, `Diverged: seed ${diverged.join(", seed ")}; left out of means.`) : null,
    seeds.length ? null : element("p", {}, "Nobody trained a lane of this cell.")));
  if (!seeds.length) return panel;
  const charts = element("div", { class: "charts" });
  const cards = [curveCard(run, cell, seeds, s), meanCard(run, cell, seeds), densityCard(run, cell, seeds), rowsCard(run, cell, seed, side, s)].filter(Boolean);
  charts.append(...cards);
  const untrained = diverged.length === seeds.length;
  const missing = untrained ? "Every lane of this cell diverged: curves, mean activations, firing densities and decoder rows that are missing here hold no number."
    : run.curves.length ? "" : "No curves: this run holds none.";
  panel.append(charts, missing && element("p", { class: "note" }, missing));
  panel.show = () => cards.forEach((one) => one.show());
  return panel;
}

function chosenSeed(run, cell, text) {
  const seed = text === undefined || text === "" ? NaN : Number(text);
  return Number.isInteger(seed) && seed >= 0 && seed < run.seeds.length ? seed : Math.max(run.bestSeeds[cell], 0);
}

function curveCard(run, cell, seeds, s) {
  const curve = run.curves.find((one) => one.name === s.curve) || run.curves[0];
  if (!curve) return null;
  const count = curve.steps.length, name = `${curve.label}, ${cellName(run, cell)}`;
  const of = (seed) => curve.numbers.subarray((cell * run.seeds.length + seed) * count, (cell * run.seeds.length + seed + 1) * count);
  const rows = () => [["step", ...seeds.map((seed) => `seed ${run.seeds[seed]}`)], ...range(count).map((at) => [curve.steps[at], ...seeds.map((seed) => Number(of(seed)[at].toPrecision(5)))])];
  const made = card({ title: `Curve: ${curve.label}`, rows, note: "Values, also those of the CSV, are rounded: within 0.013% of what was logged.", alt: `${name}: one line for each of ${seeds.length} seeds, ${seeds.map((seed) =>
    `seed ${run.seeds[seed]} ends at ${short(of(seed).findLast(Number.isFinite) ?? NaN)}`).join(", ")}.` });
  if (run.curves.length > 1) {
    made.insertBefore(choice("curve", run.curves.map((one) => [one.name, one.label]), curve.name, (value) => go({ curve: value }, true)), made.plot);
  }
  made.show = () => {
    const wide = isWide(seeds.flatMap((seed) => [...of(seed)]));
    const drawn = figure({ x: curve.x.label, y: curve.label, ...(wide ? { y_axis_type: "log" } : {}) });
    lines(drawn, run, seeds, (seed) => [[...curve.steps], [...of(seed)]], "step", made.plot.clientWidth);
    return draw(made.plot, drawn);
  };
  return made;
}

function lines(drawn, run, seeds, of, name, width) {
  const entries = seeds.map((seed, place) => {
    const [x, y] = of(seed), data = source({ x, y });
    const line = drawn.line({ field: "x" }, { field: "y" }, { source: data, line_color: tint(place), line_dash: DASHES[place % 8], line_width: 1.8 });
    hover(drawn, [line], [["seed", String(run.seeds[seed])], [name, "@x"], ["value", "@y"]]);
    return [`seed ${run.seeds[seed]}`, [line]];
  });
  if (seeds.length > 1 && seeds.length <= 12) legendIn(drawn, entries, width);
}

function sortedNumbers(run, cell, seeds, of) {
  return seeds.map((seed) => [seed, of(laneAt(run, cell, seed))]).filter(([, values]) => values?.length)
    .map(([seed, values]) => [seed, [...values].filter(Number.isFinite).sort((a, b) => a - b)]);
}

function meanCard(run, cell, seeds) {
  const means = sortedNumbers(run, cell, seeds, (lane) => run.read(lane?.mean)), rho = run.rhos ? run.rhos[cell] : NaN;
  if (!means.length) return null;
  const values = new Map(means), measured = means.map(([seed]) => seed), longest = Math.max(...means.map(([, one]) => one.length));
  const rows = () => [["rank", ...measured.map((seed) => `seed ${run.seeds[seed]}`)], ...range(longest).map((at) => [at + 1, ...measured.map((seed) => values.get(seed)[at] ?? "")])];
  const against = Number.isFinite(rho) ? ` against rho ${short(rho)}` : "";
  const all = means.flatMap(([, one]) => one), active = all.filter((one) => one > 0), wide = active.length > all.length / 2 && isWide(active);
  const words = [Number.isFinite(rho) ? "Dashed: the target rho." : "", "Units of each seed from the least to the most active.",
    wide && active.length < all.length ? `${all.length - active.length} at 0 are below a logarithmic axis.` : ""].filter(Boolean).join(" ");
  const middle = means.map(([, one]) => one[Math.floor(one.length / 2)]);
  const made = card({ title: `Mean activation per unit${against}`, rows, note: words,
    alt: `Mean activation of every unit on held-out samples, sorted${against}; medians ${middle.map((one) => short(one)).join(", ")}.` });
  made.show = () => {
    const drawn = figure({ x: "units, sorted by mean activation", y: "mean activation", ...(wide ? { y_axis_type: "log" } : {}) });
    lines(drawn, run, measured, (seed) => [range(values.get(seed).length).map((at) => at + 1), values.get(seed)], "rank", made.plot.clientWidth);
    if (Number.isFinite(rho)) drawn.line([1, longest], [rho, rho], { line_color: colour("ink"), line_dash: [8, 4], line_width: 1.5 });
    return draw(made.plot, drawn);
  };
  return made;
}

function densityCard(run, cell, seeds) {
  const densities = sortedNumbers(run, cell, seeds, (lane) => densitiesOf(run, lane));
  if (!densities.length) return null;
  // Ten parts a decade, over the decades that hold a unit.
  const active = densities.flatMap(([, rates]) => rates).filter((rate) => rate > 0).map(Math.log10);
  const low = Math.max(-6, Math.floor(Math.min(-2, ...active))), edges = range(1 - 10 * low).map((at) => low + at / 10), measured = densities.map(([seed]) => seed);
  const counts = new Map(densities.map(([seed, rates]) => {
    const bins = new Array(edges.length - 1).fill(0);
    for (const rate of rates) if (rate > 0) bins[Math.max(0, Math.min(bins.length - 1, Math.floor((Math.log10(rate) - low) * 10)))] += 1;
    return [seed, bins];
  }));
  const dead = densities.map(([, rates]) => rates.filter((rate) => rate === 0).length), dense = densities.map(([, rates]) => rates.filter((rate) => rate > run.dense).length);
  const rows = () => [["density from", "density to", ...measured.map((seed) => `seed ${run.seeds[seed]}`)],
    ...range(edges.length - 1).map((at) => [10 ** edges[at], 10 ** edges[at + 1], ...measured.map((seed) => counts.get(seed)[at])])];
  const summary = `Dead units (never active): ${dead.join(", ")}; dense ones (active on more than ${percent(run.dense)}): ${dense.join(", ")}, by seed.`;
  const made = card({ title: "Firing densities", rows, note: summary, alt: `Histogram of the share of held-out samples on which each unit is active. ${summary}` });
  made.show = () => {
    const drawn = figure({ x: "share of held-out samples on which a unit is active", y: "units", x_axis_type: "log", y_range: new Bokeh.DataRange1d({ start: 0 }) });
    lines(drawn, run, measured, (seed) => {
      const bins = counts.get(seed);
      return [bins.flatMap((_, at) => [10 ** edges[at], 10 ** edges[at + 1]]), bins.flatMap((count) => [count, count])];
    }, "density", made.plot.clientWidth);
    return draw(made.plot, drawn);
  };
  return made;
}
