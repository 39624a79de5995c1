// The pinned npm packages, which scripts/interop keeps outside of this directory.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.INTEROP_TOOLS}/npm/package.json`);

export const load = (name) => import(pathToFileURL(require.resolve(name)));
