import { createServer } from "node:http";
import pg from "pg";

/** A small app as a process: one row of `events` per read, one changed per write. Prints its port. */
const [databaseUrl = "", rows = "1"] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: databaseUrl, max: 10 });
const anyRow = () => 1 + Math.floor(Math.random() * Number(rows));

async function answer(method: string | undefined): Promise<string> {
  const statement =
    method === "POST"
      ? { name: "write", text: "update events set amount = amount + 1 where id = $1 returning id" }
      : { name: "read", text: "select id, amount::text, note from events where id = $1" };
  const { rows: found } = await pool.query({ ...statement, values: [anyRow()] });
  return JSON.stringify(found);
}

const server = createServer((request, response) => {
  request.resume();
  answer(request.method).then(
    (body) => response.end(body),
    () => response.writeHead(500).end(),
  );
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  if (address !== null && typeof address === "object") process.stdout.write(`${address.port}\n`);
});
process.on("SIGTERM", () => process.exit(0));
