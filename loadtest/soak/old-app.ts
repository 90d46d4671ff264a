import { createOldStore } from "../../examples/colonycraft/old-app.ts";
import { runSoakApp } from "./app.ts";

await runSoakApp(createOldStore);
