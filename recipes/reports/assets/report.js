// Tables of class "sortable": a click or Enter on a column's head sorts by it, again the other way round; empty cells stay last.
const worth = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();

function sort(table, column, ascending) {
  const rows = [...table.tBodies[0].rows], sign = ascending ? 1 : -1;
  rows.sort((a, b) => {
    const [x, y] = [worth(a, column), worth(b, column)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, {numeric: true}) : x - y);
  });
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.hasAttribute("data-fixed")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });
}
