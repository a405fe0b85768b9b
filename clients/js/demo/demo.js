import { Carillon } from '/sdk/v1/carillon.js';

const names = { alice: 'Alice', bob: 'Bob' };
const ui = Object.fromEntries(
  ['state', 'state-text', 'enable', 'disable', 'problem', 'send', 'send-button', 'nothing', 'log'].map((id) => [
    id,
    document.getElementById(id),
  ]),
);
const users = [...document.querySelectorAll('input[name="user"]')];

/** @type {Carillon | undefined}  until the page has its first token */
let carillon;

const user = () => users.find((radio) => radio.checked).value;

const states = {
  on: () => `Notifications for ${names[user()]} are on in this browser.`,
  off: () => 'Notifications are off.',
  blocked: () => 'Notifications are blocked. Allow them in the browser’s settings for this site, then reload.',
  unsupported: () =>
    isSecureContext
      ? 'This browser cannot receive notifications here. On an iPhone or iPad, add the page to the home screen first.'
      : 'Browsers allow notifications only over https or on localhost.',
};

/** What to say of an error; where the server's own sentence is good enough, that. */
const sentences = {
  permission_denied: 'The browser does not allow notifications for this site. You can change that in its settings.',
  permission_dismissed: 'You have not answered the question of the browser. Press “Enable notifications” again.',
  subscribe_failed: 'The browser could not subscribe. Its push service may be out of reach; try again.',
  unreachable: 'The server does not answer. Is it still running?',
};

function say(text) {
  const now = new Date();
  const time = document.createElement('time');
  time.dateTime = now.toISOString();
  time.textContent = now.toLocaleTimeString([], { hour12: false });
  const what = document.createElement('span');
  what.textContent = text;
  const item = document.createElement('li');
  item.append(time, what);
  ui.log.prepend(item);
  ui.nothing.hidden = true;
}

function complain(error) {
  console.error(error);
  const text = sentences[error.code] ?? error.message;
  ui.problem.textContent = text;
  ui.problem.hidden = false;
  say(`Did not work: ${text}`);
}

async function show() {
  if (!carillon) {
    ui['state-text'].textContent = 'The page could not start. Choose a user to try again.';
    return;
  }
  const state = await carillon.state();
  ui.state.dataset.state = state;
  ui['state-text'].textContent = states[state]();
  ui.enable.disabled = state !== 'off';
  ui.disable.disabled = state !== 'on';
  ui['send-button'].disabled = state !== 'on';
}

/** Does one thing with the buttons out of reach; tells what came of it. */
async function run(action) {
  const focused = document.activeElement;
  for (const control of [ui.enable, ui.disable, ui['send-button'], ...users]) control.disabled = true;
  ui.problem.hidden = true;
  try {
    await action();
  } catch (error) {
    complain(error);
  }
  for (const radio of users) radio.disabled = false;
  await show();
  // A button that has become useless hands the keyboard on to its counterpart.
  if (!focused?.disabled) focused?.focus?.();
  else if (focused === ui.enable) ui.disable.focus();
  else if (focused === ui.disable) ui.enable.focus();
}

async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: 'POST',
      headers: body && { 'Content-Type': 'application/json' },
      body: body && JSON.stringify(body),
    });
  } catch (cause) {
    throw new Error(sentences.unreachable, { cause });
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail || `The server answered with status ${response.status}.`);
  return answer;
}

const session = () => post(`/demo/token?user=${encodeURIComponent(user())}`);

/** Makes the page's client, whose token is always the chosen user's. */
async function start() {
  const { server, app } = await session();
  carillon = new Carillon({
    server: server || location.origin,
    app,
    token: async () => (await session()).token,
    worker: '/sdk/v1/sw.js',
    scope: '/demo/',
  });
  carillon.addEventListener('push', ({ detail }) => say(`Arrived: “${detail.notification?.title ?? '…'}”`));
  carillon.addEventListener('click', () => say('You clicked a notification.'));
  carillon.addEventListener('error', ({ detail }) => complain(detail));
}

/** Starts, or changes the user: what was on stays on and becomes theirs. */
async function become() {
  if (!carillon) await start();
  if (await carillon.refresh()) say(`Notifications in this browser go to ${names[user()]}.`);
}

ui.enable.addEventListener('click', () =>
  run(async () => {
    await carillon.subscribe();
    say(`Turned on for ${names[user()]}.`);
  }),
);

ui.disable.addEventListener('click', () =>
  run(async () => {
    await carillon.unsubscribe();
    say('Turned off.');
  }),
);

ui.send.addEventListener('submit', (event) => {
  event.preventDefault();
  const { title, body } = Object.fromEntries(new FormData(ui.send));
  run(async () => {
    const { id } = await post('/demo/send', { user: user(), title, body, url: location.href });
    say(`Sent “${title}” to ${names[user()]}${id ? ` (${id})` : ''}.`);
  });
});

for (const radio of users) radio.addEventListener('change', () => run(become));

run(become);
