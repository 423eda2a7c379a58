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
