// Headers that keep a browser from making more of an answer than it is. Always true: everything that the port answers has `EVERY`; what is neither a page
// nor somebody's media has `API`: it is kept nowhere, runs nothing and is shown in no frame.

export const EVERY: Readonly<Record<string, string>> = {
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
};

export const API: Readonly<Record<string, string>> = {
  ...EVERY,
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
};
