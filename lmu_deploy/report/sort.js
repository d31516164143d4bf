"use strict";
// Makes the column titles of tables buttons that sort their rows. Without it, tables are complete.
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
