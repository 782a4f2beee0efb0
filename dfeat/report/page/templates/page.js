// Hands the page's tables to DataTables and its curves to Vega-Lite. Without scripts the page is still whole.
import DataTable from "datatables";

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark", dark.matches); // DataTables' own dark colours
dark.addEventListener("change", follow);
addEventListener("beforeprint", () => document.documentElement.classList.remove("dark"));
addEventListener("afterprint", follow);
follow();

for (const table of document.querySelectorAll("table.data")) {
  const paged = table.dataset.paged === "true";
  const filters = table.classList.contains("long"); // a list of values at each head; heads of two lines have no place for it
  new DataTable(table, {
    order: [],
    paging: paged,
    pageLength: 25,
    lengthMenu: [25, 100, { label: "all", value: -1 }],
    autoWidth: false,
    columnControl: filters ? [["searchList"]] : [],
    layout: { topStart: "search", topEnd: paged ? "pageLength" : null, bottomStart: "info", bottomEnd: paged ? "paging" : null },
    language: {
      search: "Keep rows with",
      lengthMenu: "_MENU_ a page",
      emptyTable: "This table is empty.",
      zeroRecords: "No row holds this.",
      info: paged ? "Rows _START_ to _END_ of _TOTAL_" : "_TOTAL_ rows",
      infoEmpty: "No row",
      infoFiltered: "(of _MAX_)",
    },
  });
}

const cards = document.getElementById("gallery-table");
if (cards) {
  const gallery = new DataTable(cards, {
    order: [],
    pageLength: 24,
    lengthMenu: [24, 96, { label: "all", value: -1 }],
    autoWidth: false,
    layout: { topStart: "info", topEnd: "pageLength", bottomStart: null },
    language: { lengthMenu: "_MENU_ a page", info: "Pictures _START_ to _END_ of _TOTAL_", infoEmpty: "No picture", infoFiltered: "(of _MAX_)" },
  });
  const choose = (id, column) =>
    document.getElementById(id).addEventListener("change", (event) => {
      gallery.column(column).search(event.target.value, { exact: event.target.value !== "" }).draw();
    });
  choose("gallery-class", 1);
  choose("gallery-method", 2);
  document.getElementById("gallery-order").addEventListener("change", (event) => {
    gallery.order(event.target.value ? [[3, event.target.value]] : []).draw();
  });
  document.querySelector("#gallery .controls").hidden = false;
}

for (const place of document.querySelectorAll(".chart")) {
  const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
  vegaEmbed(place, spec, { renderer: "svg", actions: false, ast: true }).catch(console.error);
}
