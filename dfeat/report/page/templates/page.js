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
      search: "Filter rows",
      lengthMenu: "_MENU_ a page",
      emptyTable: "This table is empty.",
      zeroRecords: "No row matches.",
      info: paged ? "Rows _START_ to _END_ of _TOTAL_" : "_TOTAL_ rows",
      infoEmpty: "No row",
      infoFiltered: "(of _MAX_)",
    },
  });
}

const cards = document.getElementById("gallery-table");
if (cards) {
  const titles = [...cards.tHead.rows[0].cells].map((head) => head.textContent);
  const gallery = new DataTable(cards, {
    order: [],
    pageLength: 12,
    lengthMenu: [12, 48, { label: "all", value: -1 }],
    autoWidth: false,
    layout: { topStart: "info", topEnd: "pageLength", bottomStart: null },
    language: { lengthMenu: "_MENU_ a page", info: "Images _START_ to _END_ of _TOTAL_", infoEmpty: "No image", infoFiltered: "(of _MAX_)" },
  });
  const onChange = (id, act) => document.getElementById(id).addEventListener("change", (event) => act(event.target.value));
  onChange("gallery-class", (name) => gallery.column(0).search(name, { exact: name !== "" }).draw());
  onChange("gallery-order", (order) => gallery.order(order ? [[2, order]] : []).draw());
  onChange("gallery-method", (name) => {
    const shown = titles.map((title, place) => !name || place < 4 || title === name); // class, image, PSNR, original
    shown.forEach((visible, place) => gallery.column(place).visible(visible));
    cards.style.setProperty("--methods", shown.filter(Boolean).length - 3);
  });
  document.querySelector("#gallery .controls").hidden = false;
}

for (const place of document.querySelectorAll(".chart")) {
  const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
  vegaEmbed(place, spec, { renderer: "svg", actions: false, ast: true }).catch(console.error);
}
