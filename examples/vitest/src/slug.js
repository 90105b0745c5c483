/** A title as it stands in an address. */
export function slug(title) {
  return title.toLowerCase().split(/[^a-z0-9]+/).filter(Boolean).join('-')
}
