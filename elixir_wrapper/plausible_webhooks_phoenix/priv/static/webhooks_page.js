// The script of the webhook settings: it copies, counts down, keeps the address of a filtered
// log, and asks before unsaved edits are left. The page brings it inline or the host loads
// it: see the session key "script" of PlausibleWeb.Live.WebhookSettings.
(() => {
  const find = (selector) => document.querySelector(`#webhook-settings ${selector}`);

  window.addEventListener("webhooks:copy", async ({ target: field }) => {
    field.focus();
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      // Without HTTPS there is no clipboard API.
      document.execCommand("copy");
    }
    const status = document.getElementById(`${field.id}-copied`);
    status.textContent = "Copied";
    setTimeout(() => (status.textContent = ""), 2000);
  });

  window.addEventListener("click", ({ target }) => {
    if (target.matches?.("#webhook-settings [readonly]")) target.select();
  });

  window.addEventListener("beforeunload", (event) => {
    if (!find("[data-unsaved]")) return;
    event.preventDefault();
    event.returnValue = true;
  });

  window.addEventListener("phx:webhooks:address", ({ detail }) =>
    history.replaceState(history.state, "", detail.to),
  );

  // What was done is said once, not again when the page is reloaded.
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    address.searchParams.delete("done");
    history.replaceState(history.state, "", address);
  }

  // By the server's clock.
  const ahead = Date.now() - Number(document.getElementById("webhook-settings")?.dataset.now);
  const two = (number) => String(number).padStart(2, "0");
  setInterval(() => {
    for (const element of document.querySelectorAll("#webhook-settings [data-until]")) {
      const seconds = Math.max(Math.ceil((Number(element.dataset.until) + ahead - Date.now()) / 1000), 0);
      const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
      const clock = hours ? `${hours}:${two(minutes)}` : minutes;
      element.textContent = `${clock}:${two(seconds % 60)}`;
    }
  }, 1000);
})();
