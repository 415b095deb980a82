// Copies what is in the field that a button of the webhook settings points at. Optional:
// a host that loads it says so in the page's session ("copy" => true).
window.addEventListener("webhooks:copy", (event) => {
  const field = event.target;
  field.focus();
  field.select();
  if (navigator.clipboard) navigator.clipboard.writeText(field.value);
  else document.execCommand("copy");
});
