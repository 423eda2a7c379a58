// What is shown, as a file: a picture of the chart under its title, or the rows behind it.
function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function fileName(title, ending) {
  const words = title.toLowerCase().replace(/[^a-z0-9.]+/g, "-").replace(/^-|-$/g, "");
  return `${words.slice(0, 60) || "chart"}.${ending}`;
}

function saveTable(rows, title) {
  const cell = (value) => {
    const text = Number.isNaN(value) ? "" : String(value ?? "");
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  save(new Blob([rows.map((row) => row.map(cell).join(",")).join("\n"), "\n"], { type: "text/csv" }), fileName(title, "csv"));
}

function savePicture(plot, title) {
  const drawn = plot.view ? plot.view.export("png", true).canvas : picturesIn(plot);
  const scale = plot.view ? drawn.width / plot.view.bbox.width : TWICE, head = Math.round(34 * scale);
  const whole = element("canvas", { width: Math.max(drawn.width, 300 * scale), height: drawn.height + head });
  const brush = whole.getContext("2d");
  brush.fillStyle = colour("card");
  brush.fillRect(0, 0, whole.width, whole.height);
  brush.fillStyle = colour("ink");
  brush.font = `${Math.round(14 * scale)}px system-ui, sans-serif`;
  brush.fillText(title, 8 * scale, 22 * scale, whole.width - 16 * scale);
  brush.drawImage(drawn, 0, head);
  whole.toBlob((blob) => save(blob, fileName(title, "png")));
}

const TWICE = 2;

// Pictures, and the words above and below them, as they lie on the page.
function picturesIn(plot) {
  const [left, top] = [plot.getBoundingClientRect().left - 8, plot.getBoundingClientRect().top];
  const parts = [...plot.querySelectorAll("canvas, h4, figcaption")].map((part) => [part, part.getBoundingClientRect()]);
  const [right, bottom] = ["right", "bottom"].map((side) => Math.max(...parts.map(([, box]) => box[side])) + 8);
  const whole = element("canvas", { width: Math.ceil(TWICE * (right - left)), height: Math.ceil(TWICE * (bottom - top)) });
  const brush = whole.getContext("2d");
  brush.scale(TWICE, TWICE);
  Object.assign(brush, { imageSmoothingEnabled: false, textBaseline: "top", fillStyle: colour("ink") });
  for (const [part, box] of parts) {
    const [x, y] = [box.left - left, box.top - top];
    if (part.tagName === "CANVAS") {
      brush.drawImage(part, x, y, box.width, box.height);
    } else {
      const { font, textAlign } = getComputedStyle(part);
      Object.assign(brush, { font, textAlign });
      brush.fillText(part.textContent, textAlign === "center" ? x + box.width / 2 : x, y + 2, box.width);
    }
  }
  return whole;
}
