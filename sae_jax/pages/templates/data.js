// A run's numbers: unpacked once, read as typed arrays.
const TYPES = { f4: Float32Array, i4: Int32Array, u1: Uint8Array };

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new Uint32Array(buffer, 0, 1)[0];
  const run = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  run.read = (block) => block && new TYPES[block.type](buffer, 4 + length + block.at, product(block.shape));
  run.sizes = run.axes.map((axis) => axis.values.length);
  run.cells = product(run.sizes);
  for (const measure of run.measures) measure.numbers = run.read(measure.values);
  for (const curve of run.curves) [curve.steps, curve.numbers] = [run.read(curve.x.values), run.read(curve.values)];
  run.ends = run.read(run.diverged);
  run.bestSeeds = run.read(run.best);
  run.rhos = run.read(run.rho);
  return run;
}

function product(sizes) {
  return sizes.reduce((total, size) => total * size, 1);
}

function range(count) {
  return Array.from({ length: count }, (_, index) => index);
}

// Positions along the axes of a cell's number, and back.
function placesOf(run, cell) {
  const places = [];
  for (const size of [...run.sizes].reverse()) {
    places.unshift(cell % size);
    cell = Math.floor(cell / size);
  }
  return places;
}

function cellAt(run, places) {
  return places.reduce((cell, place, axis) => cell * run.sizes[axis] + place, 0);
}

function cellName(run, cell) {
  const words = placesOf(run, cell).map((place, axis) => `${run.axes[axis].name} ${run.axes[axis].values[place]}`);
  return words.join(", ") || "the only cell";
}

// A value of an axis as it stands in tables: a number with all of its digits, or words.
function exactly(axis, place) {
  return axis.numbers ? axis.numbers[place] : axis.values[place];
}

// Mean, sample standard deviation (n - 1) and count of the seeds of some cells that are numbers.
function spread(run, measure, cells) {
  const seeds = run.seeds.length, bySeed = [];
  for (const seed of range(seeds)) {
    const values = cells.map((cell) => measure.numbers[cell * seeds + seed]).filter(Number.isFinite);
    if (values.length) bySeed.push(values.reduce((a, b) => a + b, 0) / values.length);
  }
  const count = bySeed.length, mean = bySeed.reduce((a, b) => a + b, 0) / count;
  const squares = bySeed.reduce((total, value) => total + (value - mean) ** 2, 0);
  return { mean, deviation: count > 1 ? Math.sqrt(squares / (count - 1)) : NaN, count };
}

function measureOf(run, name) {
  return run.measures.find((measure) => measure.name === name);
}

// The step at which a lane diverged; -1 where it did not, -2 where there is no lane.
function divergedAt(run, cell, seed) {
  return run.ends[cell * run.seeds.length + seed];
}

function laneAt(run, cell, seed) {
  return run.lanes[cell * run.seeds.length + seed];
}

// Why a cell shows no number, in words.
function absence(run, cell) {
  const ends = range(run.seeds.length).map((seed) => run.ends[cell * run.seeds.length + seed]);
  if (ends.every((end) => end === -2)) return "none";
  return ends.every((end) => end !== -1) ? "diverged" : "none";
}

function short(value, digits = 3) {
  if (!Number.isFinite(value)) return "none";
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e5)) return value.toExponential(digits - 1);
  return String(Number(value.toPrecision(digits)));
}

// A mean with its deviation, and of how many seeds unless that goes without saying.
function withDeviation({ mean, deviation, count }, known = 0) {
  if (!count) return "none";
  const seeds = count === known ? "" : ` (${count === 1 ? "one seed" : `${count} seeds`})`;
  return `${short(mean)}${Number.isFinite(deviation) ? ` \u00b1 ${short(deviation, 2)}` : ""}${seeds}`;
}

function percent(share) {
  if (!Number.isFinite(share)) return "unknown";
  return share === 0 ? "0%" : `${short(100 * share, 2)}%`;
}
