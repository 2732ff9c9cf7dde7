// How the console is built. Always true: links are relative (the service may stand behind a prefix), names of assets hold their digest, and no
// script or style is inline (the policy that the page is sent with allows none).
import { defineConfig } from 'vite';

export default defineConfig({
  root: import.meta.dirname,
  base: './',
  publicDir: false,
  build: {
    // light-dark() and CSS nesting: Chrome 123, Firefox 120, Safari 17.5.
    target: ['chrome123', 'firefox120', 'safari17.5'],
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  server: { proxy: { '/facefusion.jobs.v1': 'http://127.0.0.1:8000', '/api': 'http://127.0.0.1:8000', '/blobs': 'http://127.0.0.1:8000' } },
});
