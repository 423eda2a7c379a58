// Decoder rows and samples as pictures: a pixel for every number, magnified by the browser.
function pictureOf(bytes, at, [height, width], size, label) {
  const canvas = element("canvas", { class: "picture", width, height, role: "img", "aria-label": label });
  const scale = size / Math.max(height, width);
  canvas.style.width = `${Math.round(width * scale)}px`;
  canvas.style.height = `${Math.round(height * scale)}px`;
  canvas.getContext("2d").putImageData(greyImage(bytes, at, height, width), 0, 0);
  return canvas;
}

function greyImage(bytes, at, height, width) {
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < height * width; pixel += 1) {
    const grey = bytes[at + pixel];
    image.data.set([grey, grey, grey, 255], 4 * pixel);
  }
  return image;
}

const MOST_TILES = 1024;

function rowsCard(run, cell, seed, side) {
  const lane = laneAt(run, cell, seed);
  if (!lane?.rows) return null;
  const [height, width] = lane.shape, bytes = run.read(lane.rows), shown = Math.min(lane.units, MOST_TILES);
  const across = Math.ceil(Math.sqrt(shown)), down = Math.ceil(shown / across);
  const title = `Decoder rows of seed ${run.seeds[seed]}`;
  const rows = () => [["unit", ...range(height * width).map((pixel) => `pixel ${pixel}`)],
    ...range(lane.units).map((unit) => [unit, ...[...bytes.subarray(unit * height * width, (unit + 1) * height * width)].map((value) => Number((value / 127.5 - 1).toFixed(3)))])];
  const part = shown < lane.units ? ` The first ${shown} of ${lane.units}.` : "";
  const made = card({ title, rows, note: `Each row is scaled to its own largest weight; the CSV holds them so, from -1 to 1, in steps of 0.008.${part} Click one for its unit.`,
    alt: `Decoder rows of ${lane.units} units as pictures of ${height} by ${width} pixels.` });
  const canvas = element("canvas", { class: "rows", width: across * (width + 1) + 1, height: down * (height + 1) + 1 });
  canvas.style.width = `${Math.max(canvas.width, Math.min(420, canvas.width * 6))}px`;
  const brush = canvas.getContext("2d");
  for (const unit of range(shown)) {
    brush.putImageData(greyImage(bytes, unit * height * width, height, width), 1 + (unit % across) * (width + 1), 1 + Math.floor(unit / across) * (height + 1));
  }
  canvas.addEventListener("click", (event) => {
    const scale = canvas.width / canvas.clientWidth;
    const unit = Math.floor((event.offsetY * scale) / (height + 1)) * across + Math.floor((event.offsetX * scale) / (width + 1));
    if (unit < shown) go({ view: "units", run: side.run, cell: placesOf(run, cell).join("-"), seed, unit });
  });
  made.plot.append(canvas);
  made.show = () => {};
  return made;
}
