"use strict";
// Column titles of tables sort their rows, and plots show the values under the pointer. Without this
// script tables are complete, and every plot has a description.
const FACTORS = { p: 1e-12, n: 1e-9, "µ": 1e-6, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12 };
const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";

function numberOf(text) {
  const plain = text.replace(/[,\s]/g, "").replace(/−/g, "-");
  const found = plain.match(/^[<≤≥+]?(-?\d+(?:\.\d+)?)(?:·10(⁻?)([⁰¹²³⁴-⁹]+))?(.*)$/);
  if (!found) return null;
  const [, digits, negative, raised, rest] = found;
  let value = parseFloat(digits);
  if (raised) {
    const power = Number([...raised].map((digit) => RAISED.indexOf(digit)).join(""));
    value *= 10 ** (negative ? -power : power);
  }
  if (/min$/.test(rest)) return 60 * value;
  const unit = rest.match(/([pnµmkMGT])[JsB]$|^([MGT])$/);
  return unit ? value * FACTORS[unit[1] || unit[2]] : value;
}

function compared(one, other) {
  const [a, b] = [numberOf(one), numberOf(other)];
  if (a !== null && b !== null) return a - b;
  if (a !== null || b !== null) return a === null ? Infinity : -Infinity;
  return one.localeCompare(other);
}

function sortBy(table, title, column) {
  const down = title.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  title.setAttribute("aria-sort", down ? "descending" : "ascending");
  const text = (row) => row.cells[column].textContent.trim();
  const rows = [...table.tBodies[0].rows].sort((one, other) => {
    const order = compared(text(one), text(other));
    return down && Number.isFinite(order) ? -order : order;
  });
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table")) {
  const rows = table.tBodies.length === 1 ? [...table.tBodies[0].rows] : [];
  const titles = table.tHead ? [...table.tHead.rows[0].cells] : [];
  if (rows.length < 3 || rows.some((row) => row.cells.length !== titles.length)) continue;
  titles.forEach((title, column) => {
    if (!title.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...title.childNodes);
    button.addEventListener("click", () => sortBy(table, title, column));
    title.append(button);
  });
}

// The value at a share of an axis, after the axis' name; of an axis with labels of its own, the label
// there. Nothing without either.
function valueAt(name, share, [low, high, isLog, isShare, labels]) {
  const value = isLog ? low * (high / low) ** share : low + share * (high - low);
  const short = Number((isShare ? 100 * value : value).toPrecision(3));
  if (!labels) return name ? `${name} ${short}${isShare ? " %" : ""}` : "";
  const label = labels.find(([place]) => Math.abs(place - value) <= 0.5);
  return label ? `${name} ${label[1]}`.trim() : "";
}

// The height of a line at x, in units of the drawing: lines run from left to right.
function heightAt(line, x) {
  const box = line.getBBox();
  if (x < box.x || x > box.x + box.width) return null;
  let [from, to] = [0, line.getTotalLength()];
  for (let n = 0; n < 24; n += 1) {
    const middle = (from + to) / 2;
    if (line.getPointAtLength(middle).x < x) from = middle;
    else to = middle;
  }
  return line.getPointAtLength(to).y;
}

function nearest(list, value) {
  return list.reduce((best, each, n) =>
    Math.abs(each - value) < Math.abs(list[best] - value) ? n : best, 0);
}

function textsAt(drawing, at) {
  const all = JSON.parse(drawing.dataset.axes);
  const number = all.findIndex(({ box: [left, top, right, bottom] }) =>
    at.x >= left && at.x <= right && at.y >= top && at.y <= bottom);
  if (number < 0) return [];
  const { box: [left, top, right, bottom], x, y, names } = all[number];
  const up = (height) => (bottom - height) / (bottom - top);
  const texts = [valueAt(names[0], (at.x - left) / (right - left), x)];
  const wide = drawing.parentElement.querySelector("svg.wide");
  const { cells } = JSON.parse(wide.dataset.axes)[number];
  if (cells) {
    const column = nearest(cells.x, x[0] + ((at.x - left) / (right - left)) * (x[1] - x[0]));
    const place = y[0] + up(at.y) * (y[1] - y[0]);
    const row = Math.min(cells.rows.length - 1, Math.max(0, Math.round(place)));
    return [`${names[0]} ${cells.x[column]}, ${names[1]} ${cells.y[row]}`, `${cells.rows[row][column]}`];
  }
  const lines = [...drawing.querySelectorAll("[data-line]")].flatMap((group) => {
    const line = group.querySelector("path");
    const height = line ? heightAt(line, at.x) : null;
    if (height === null || height < top - 1 || height > bottom + 1) return [];
    return valueAt(`${group.dataset.line}:`, up(height), y);
  });
  if (!lines.length) texts.push(valueAt(names[1], up(at.y), y));
  return [...texts, ...lines].filter((text) => text);
}

const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("aria-hidden", "true"); // tables and descriptions have the values
tip.hidden = true;
document.body.append(tip);
for (const drawing of document.querySelectorAll("svg[data-axes]")) {
  const show = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY);
    const texts = textsAt(drawing, place.matrixTransform(drawing.getScreenCTM().inverse()));
    tip.hidden = !texts.length;
    tip.textContent = texts.join("\n");
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - width - 4);
    const below = event.clientY + 18;
    const top = below + height > window.innerHeight ? event.clientY - height - 10 : below;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  };
  drawing.addEventListener("pointermove", show);
  drawing.addEventListener("pointerdown", show);
  drawing.addEventListener("pointerleave", () => { tip.hidden = true; });
}
