// A formula wider than the page scrolls. Let the keyboard scroll it too, as the theme does for code and tables.
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const reach = () =>
    document.querySelectorAll("div.math mjx-container").forEach((formula) => {
      formula.tabIndex = formula.scrollWidth > formula.clientWidth || formula.scrollHeight > formula.clientHeight ? 0 : -1;
    });
  reach();
  addEventListener("resize", reach);
});
