// Where the console begins: theme and language before anything is drawn, then the page that the address names.
import './style/tokens.css';
import './style/base.css';
import './style/controls.css';
import './style/status.css';
import './style/jobs.css';
import './style/submit.css';
import './style/job.css';
import './style/fleet.css';
import './style/phone.css';
import { render } from 'preact';
import { App } from './app.tsx';
import { startRouter } from './router.ts';
import { startLinks } from './service/link.ts';
import { followOverview } from './service/overview.ts';
import { startTheme } from './theme.ts';
import { startLanguage } from './words/words.ts';

startTheme();
startRouter();
startLinks();
await startLanguage();
void followOverview(new AbortController().signal);
render(<App />, document.getElementById('app')!);
