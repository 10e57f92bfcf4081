// Pages work without this script. It only adds buttons that copy a license key.
"use strict";
for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  const words = button.textContent;
  const select = () => {
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };
  button.addEventListener("click", async () => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      // No clipboard without TLS: select the key, and try the older way.
      select();
      copied = document.execCommand("copy");
    }
    button.textContent = copied ? "Copied" : "Selected: copy it now";
    window.setTimeout(() => { button.textContent = words; }, 2000);
  });
  button.hidden = false;
}
