"""One page that shows finished runs in a browser, without a network: what it holds of a run, and the page itself."""
