// Connects the page's LiveView, as every host does.
const token = document.querySelector("meta[name=csrf-token]").content;
window.liveSocket = new LiveView.LiveSocket("/live", Phoenix.Socket, { params: { _csrf_token: token } });
window.liveSocket.connect();
