const OF_THE_SERVICE = /^\/(?:api\/|tallyhouse\.v1\.|stats(?:\?|$)|readyz|docs|openapi\.json)/;

/** Whether a request for this path is answered by the service, not by the dashboard's pages. */
export function isOfTheService(path) {
  return OF_THE_SERVICE.test(path);
}
