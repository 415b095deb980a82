// Copies the field that a "Copy" button of the webhook settings points at, and says so
// beside the button. The page brings this script or the host loads it: see the session key
// "copy" of PlausibleWeb.Live.WebhookSettings.
window.addEventListener("webhooks:copy", async (event) => {
  const field = event.target;
  field.focus();
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    // Without HTTPS there is no clipboard API.
    document.execCommand("copy");
  }
  const status = document.getElementById(`${field.id}-copied`);
  status.textContent = status.dataset.copied;
  setTimeout(() => (status.textContent = ""), 2000);
});
