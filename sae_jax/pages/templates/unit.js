// One unit: its decoder row, samples, histogram, the units like it, and its match in other seeds.
function unitPanel(run, cell, seed, lane, unit) {
  const detail = lane.detail, samples = samplesOf(run, lane), number = unit.number;
  const flags = [unit.dead && "dead", unit.dense && "dense"].filter(Boolean);
  const facts = [["active on", percent(unit.density)], ["mean activation", short(unit.mean)], ["largest", short(unit.largest)], ["match in other seeds", Number.isFinite(unit.match) ? short(unit.match, 2) : ""]];
  const panel = element("div", { class: "unit" });
  const row = lane.rows ? unitRow(run, lane, number) : null;
  panel.append(element("div", { class: "card" }, element("div", { class: "lead" }, lane.shape ? row : null, element("div", {},
    element("h2", {}, `Unit ${number}`, ...flags.flatMap((flag) => [" ", element("span", { class: "flag" }, flag)])),
    element("p", { class: "facts" }, facts.filter(([, value]) => value).map(([name, value]) => `${name} ${value}`).join("; ")),
    element("p", { class: "facts" }, `${cellName(run, cell)}, seed ${run.seeds[seed]}`)))), lane.shape ? "" : row ?? "");
  if (!detail) {
    panel.append(element("p", { class: "note" }, divergedAt(run, cell, seed) >= 0 ? `This lane diverged at step ${divergedAt(run, cell, seed)}: the page holds no samples, neighbours and matches of its units.`
      : "This page holds no samples, neighbours and matches of this lane: About says why."));
    panel.show = () => row?.show?.();
    return panel;
  }
  const [each, quantiles] = [detail.top.shape[1], detail.at_quantiles.shape];
  const slice = (name, count) => run.read(detail[name]).subarray(number * count, (number + 1) * count);
  const top = slice("top", each), codes = slice("top_codes", each);
  const [at, of] = [slice("at_quantiles", quantiles[1] * quantiles[2]), slice("codes_at_quantiles", quantiles[1] * quantiles[2])];
  const around = run.quantiles.map((quantile, place) => {
    const part = (values) => values.subarray(place * quantiles[2], (place + 1) * quantiles[2]);
    return [`Around the ${Math.round(100 * quantile)}% quantile of its activations`, part(at), part(of)];
  });
  const groups = top[0] < 0 ? element("div", { class: "card" }, element("h3", {}, "Never active on a held-out sample"))
    : samplesCard(samples, `Held-out samples of unit ${number}`, [["Largest activations", top, codes], ...around]);
  const histogram = unit.dead || top[0] < 0 ? null : histogramCard(run, number, slice("histogram", detail.histogram.shape[1]), codes[0], detail);
  panel.append(groups, ...[histogram, likeCard(run, cell, seed, lane, number)].filter(Boolean));
  panel.show = () => [row, histogram].forEach((one) => one?.show?.());
  return panel;
}

function samplesCard(samples, title, groups) {
  const name = (number) => (samples.names ? [samples.names[samples.place.get(number)]] : []);
  const rows = () => [["samples", "sample", ...(samples.names ? ["name"] : []), "activation"], ...groups.flatMap(([words, numbers, codes]) =>
    range(numbers.length).filter((rank) => numbers[rank] >= 0).map((rank) => [words, numbers[rank], ...name(numbers[rank]), codes[rank]]))];
  const made = card({ title, rows, alt: title, role: "group", picture: Boolean(samples.pictures) });
  made.plot.append(...groups.flatMap(([words, numbers, codes]) => [element("h4", {}, words), sampleStrip(samples, numbers, codes)]));
  return made;
}

function sampleStrip(samples, numbers, codes) {
  const shown = range(numbers.length).filter((rank) => numbers[rank] >= 0);
  const largest = Math.max(...shown.map((rank) => Math.abs(codes[rank])), 1e-30);
  if (samples.pictures) {
    return element("div", { class: "strip" }, shown.map((rank) => {
      const place = samples.place.get(numbers[rank]), label = `sample ${numbers[rank]}, activation ${short(codes[rank])}`;
      return element("figure", { title: label }, pictureOf(samples.bytes, place * product(samples.shape), samples.shape, 56, label), element("figcaption", {}, short(codes[rank])));
    }));
  }
  const words = (number) => (samples.names ? samples.names[samples.place.get(number)].replaceAll(" ", "\u2423") : `sample ${number}`);
  return element("ul", { class: "names" }, shown.map((rank) => element("li", { title: `${words(numbers[rank])}, activation ${short(codes[rank])}` },
    element("i", { style: `width:${Math.round((100 * Math.abs(codes[rank])) / largest)}%` }),
    element("b", {}, short(codes[rank])), element("span", {}, words(numbers[rank])))));
}

function histogramCard(run, number, counts, largest, detail) {
  const high = Math.abs(largest), bins = counts.length, edge = (at) => (high * at) / bins;
  const rows = () => [["activation from", "activation to", "samples"], ...range(bins).map((at) => [edge(at), edge(at + 1), counts[at]])];
  const made = card({ title: `Activations of unit ${number}`, rows, note: `Of ${detail.of} held-out samples, those on which it is active (${detail.rule}).`,
    alt: `Histogram of the activations of unit ${number}, from 0 to ${short(high)}; the highest bar has ${Math.max(...counts)} samples.` });
  made.show = () => {
    const drawn = figure({ height: 200, x: "activation", y: "samples", y_range: new Bokeh.DataRange1d({ start: 0 }) });
    const data = source({ left: range(bins).map(edge), right: range(bins).map((at) => edge(at + 1)), top: [...counts] });
    const bars = drawn.quad({ field: "left" }, { field: "right" }, 0, { field: "top" }, { source: data, fill_color: tint(0), line_color: colour("card") });
    hover(drawn, [bars], [["activation", "@left to @right"], ["samples", "@top"]]);
    return draw(made.plot, drawn);
  };
  return made;
}

// Buttons that lead to the units of the nearest decoder rows, here and in other seeds.
function likeCard(run, cell, seed, lane, number) {
  const detail = lane.detail, groups = [];
  const link = (text, changes, other, unit) => {
    const rows = other?.shape ? run.read(other.rows) : null;
    return element("button", { type: "button", onclick: () => go(changes) },
      rows ? pictureOf(rows, unit * product(other.shape), other.shape, 48, `decoder row of unit ${unit}`) : null, text);
  };
  const listed = (name) => {
    const count = detail[name]?.shape[1] ?? 0, numbers = count ? run.read(detail[name]) : [], cosines = count ? run.read(detail[`${name}_cosines`]) : [];
    return range(count).map((at) => [at, numbers[number * count + at], cosines[number * count + at]]).filter(([, unit]) => unit >= 0);
  };
  const near = listed("nearest").map(([, unit, cosine]) => link(`unit ${unit} (${short(cosine, 2)})`, { unit }, lane, unit));
  if (near.length) groups.push(element("h3", {}, "Nearest units of this lane (cosine of decoder rows)"), element("div", { class: "strip" }, near));
  const matched = listed("match").map(([at, unit, cosine]) => {
    const other = run.seeds.indexOf(detail.seeds[at]);
    return link(`seed ${detail.seeds[at]}: unit ${unit} (${short(cosine, 2)})`, { seed: other, unit }, laneAt(run, cell, other), unit);
  });
  if (matched.length) groups.push(element("h3", {}, "Match in other seeds (cosine of decoder rows)"), element("div", { class: "strip" }, matched));
  return groups.length ? element("div", { class: "card" }, ...groups) : null;
}
