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
  const drawn = plot.view ? plot.view.export("png", true).canvas : plot.querySelector("canvas");
  const scale = plot.view ? drawn.width / plot.view.bbox.width : 1, head = Math.round(34 * scale);
  const whole = element("canvas", { width: Math.max(drawn.width, 300), height: drawn.height + head });
  const brush = whole.getContext("2d");
  brush.fillStyle = colour("card");
  brush.fillRect(0, 0, whole.width, whole.height);
  brush.fillStyle = colour("ink");
  brush.font = `${Math.round(14 * scale)}px system-ui, sans-serif`;
  brush.fillText(title, 8 * scale, 22 * scale, whole.width - 16 * scale);
  brush.drawImage(drawn, 0, head);
  whole.toBlob((blob) => save(blob, fileName(title, "png")));
}
