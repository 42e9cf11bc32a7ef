/* Last: when everything is defined, the first tab or the one in the address is opened. */
root.dataset.theme = dark() ? "dark" : "light";
open(Math.max(0, panels.findIndex((panel) => `#${panel.id}` === location.hash)), false);
