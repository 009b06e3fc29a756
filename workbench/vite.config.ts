import { defineConfig } from "vite";

// The built files are committed and shipped in the wheel. Their names carry no hash: the server knows each of them by
// name (inkstone/serve/page.py), sends an ETag, and a rebuild shows up as a change of the same three files.
export default defineConfig({
  build: {
    outDir: "../inkstone/serve/workbench",
    emptyOutDir: true,
    target: "es2023",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: {
        entryFileNames: "assets/workbench.js",
        assetFileNames: "assets/workbench[extname]",
        codeSplitting: false,
      },
    },
  },
  // `npm run dev` beside `inkstone serve`
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8000", changeOrigin: false } } },
});
