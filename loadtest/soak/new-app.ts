import { createNewStore } from "../../examples/colonycraft/new-app.ts";
import { runSoakApp } from "./app.ts";

await runSoakApp(createNewStore);
