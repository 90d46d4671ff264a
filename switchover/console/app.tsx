import { useEffect } from "preact/hooks";
import { Charts } from "./charts.tsx";
import { Controls, Notices } from "./controls.tsx";
import { Backfill, Mirror, Verify } from "./data.tsx";
import { Dialogs } from "./dialogs.tsx";
import { Card, TipLayer } from "./explain.tsx";
import { field } from "./form.ts";
import { Gates } from "./gates.tsx";
import { Quarantine, Timeline } from "./history.tsx";
import { Header, PhaseTrack, VerdictLine, WhoAnswers } from "./overview.tsx";
import { enter, loginError, offline, session, status } from "./state.ts";
import { Shadow, Sidecars } from "./traffic.tsx";

/** The page: a login, or everything. */
export function App() {
  if (session.value === undefined) return <Waiting />;
  if (session.value === null) return <Login />;
  return <Console />;
}

function Waiting() {
  return (
    <main class="login">
      <h1>Crossfade</h1>
      <p role="status">{offline.value ?? "Asking the controller…"}</p>
    </main>
  );
}

function Login() {
  return (
    <main class="login">
      <h1>Crossfade</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void enter(field(new FormData(event.currentTarget), "token"));
        }}
      >
        <label>
          Token
          <input name="token" type="password" required autocomplete="off" />
        </label>
        {loginError.value !== null && (
          <p role="alert" class="warn">
            {loginError.value}
          </p>
        )}
        <button type="submit" class="advance">
          Log in
        </button>
        <p class="soft">
          One of operate.tokens in the plan. It is kept for this tab, until it is closed.
        </p>
      </form>
    </main>
  );
}

function Console() {
  const found = status.value;
  useEffect(() => {
    const { plan } = found ?? {};
    document.title = plan === undefined ? "Crossfade" : `${found?.phase} · ${plan} · Crossfade`;
  }, [found?.plan, found?.phase]);
  if (found === undefined) return <Waiting />;
  return (
    <>
      <Header status={found} />
      <main>
        <VerdictLine status={found} />
        <PhaseTrack status={found} />
        <Controls status={found} />
        <div class="cards">
          <Gates status={found} />
          <Card title="Who answers" id="answers">
            <WhoAnswers status={found} />
          </Card>
          <Mirror status={found} />
          <Backfill status={found} />
          <Verify status={found} />
          <Sidecars status={found} />
          <Charts />
          <Shadow status={found} />
          <Quarantine />
          <Timeline />
        </div>
      </main>
      <Notices />
      <Dialogs />
      <TipLayer />
    </>
  );
}
