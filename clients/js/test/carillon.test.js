// The client against small fakes of a browser and of the server's API.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Carillon, CarillonError } from '../carillon.js';

const KEY = 'BAEC_-8';
const ENDPOINT = 'https://push.example/e/';

const usual = {
  'GET /v1/me/push-key': [200, JSON.stringify({ public_key: KEY })],
  'PUT /v1/me/devices': [201, '{"id":"dev_1"}'],
  'POST /v1/me/devices/unregister': [204, ''],
};

/** Thrown as a browser's DOMException is told apart: by its name. */
const named = (name) => Object.assign(new Error(`${name} happened`), { name });

/**
 * Makes the globals of a page and returns what there is to look at. permission is what the user answers;
 * subscribed is the key of a subscription that exists; answers maps "METHOD /path" to [status, body].
 */
function browser({ permission = 'granted', subscribed = null, answers = {}, storage = new Map(), worker = 'activated' } = {}) {
  const page = { requests: [], asked: 0, storage, registered: [], subscription: null, made: 0, listeners: {} };
  const subscription = (key) => ({
    key,
    endpoint: ENDPOINT + ++page.made,
    toJSON() {
      return { endpoint: this.endpoint, expirationTime: null, keys: { p256dh: 'p', auth: 'a' } };
    },
    async unsubscribe() {
      page.subscription = null;
      return true;
    },
  });
  if (subscribed) page.subscription = subscription(subscribed);
  const registration = {
    scope: 'https://app.example/',
    active: worker === 'activated' ? {} : null,
    installing: worker === 'activated' ? null : Object.assign(new EventTarget(), { state: 'installing' }),
    pushManager: {
      getSubscription: async () => page.subscription,
      subscribe: async ({ userVisibleOnly, applicationServerKey }) => {
        assert.equal(userVisibleOnly, true);
        if (!registration.active) throw named('AbortError');
        const key = Buffer.from(applicationServerKey).toString('base64url');
        if (page.subscription && page.subscription.key !== key) throw named('InvalidStateError');
        return (page.subscription ??= subscription(key));
      },
    },
  };
  page.registration = registration;
  const serviceWorker = {
    addEventListener: (type, listener) => (page.listeners[type] = listener),
    getRegistration: async () => (page.registered.length || subscribed ? registration : undefined),
    register: async (url, options) => {
      if (worker === 'missing') throw named('TypeError');
      page.registered.push([url, options]);
      return registration;
    },
  };
  page.settle = (state) => {
    const installing = registration.installing;
    installing.state = state;
    if (state === 'activated') registration.active = installing;
    installing.dispatchEvent(new Event('statechange'));
  };
  const globals = {
    isSecureContext: true,
    location: new URL('https://app.example/page'),
    PushManager: class {},
    Notification: {
      permission: subscribed ? 'granted' : 'default',
      requestPermission: async () => {
        page.asked++;
        return (globals.Notification.permission = permission);
      },
    },
    navigator: { language: 'de-AT', serviceWorker, locks: { request: (name, work) => work() } },
    localStorage: {
      getItem: (k) => storage.get(k) ?? null,
      setItem: (k, v) => storage.set(k, v),
      removeItem: (k) => storage.delete(k),
    },
    fetch: async (url, { method, headers, body }) => {
      page.requests.push({ url, method, headers, body: body && JSON.parse(body) });
      const route = `${method} ${new URL(url).pathname}`;
      const answer = { ...usual, ...answers }[route];
      assert.ok(answer, `an answer for ${route}`);
      if (answer instanceof Error) throw answer;
      return new Response(answer[0] === 204 ? null : answer[1], { status: answer[0] });
    },
  };
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  return page;
}

const client = (options) => new Carillon({ server: 'https://carillon.example/', token: async () => 'jwt', ...options });
const failure = (code, status = 0) => (error) =>
  error instanceof CarillonError && error.code === code && error.status === status && error.message !== '';
/** Lets the event loop turn until something is so; fails where it never comes to be. */
async function until(so) {
  for (let turn = 0; turn < 1000 && !so(); turn++) await new Promise(setImmediate);
  assert.ok(so(), String(so));
}

const calls = (page) => page.requests.map(({ method, url }) => `${method} ${url.replace('https://carillon.example', '')}`);

test('subscribe registers the worker, subscribes and tells the server', async () => {
  const page = browser();
  const c = client({ app: 'my app' });
  assert.equal(await c.state(), 'off');
  assert.deepEqual(await c.subscribe(), { id: 'dev_1' });
  assert.equal(await c.state(), 'on');
  assert.equal(page.asked, 1);
  assert.deepEqual(page.registered, [['/sw.js', { scope: 'https://app.example/' }]]);
  assert.deepEqual(calls(page), ['GET /v1/me/push-key?app=my%20app', 'PUT /v1/me/devices']);
  const { headers, body } = page.requests[1];
  assert.equal(headers.Authorization, 'Bearer jwt');
  assert.equal(headers['Content-Type'], 'application/json');
  const { installation_id: installation, time_zone: zone, ...rest } = body;
  assert.deepEqual(rest, {
    app: 'my app',
    channel: 'webpush',
    subscription: { endpoint: `${ENDPOINT}1`, expirationTime: null, keys: { p256dh: 'p', auth: 'a' }, vapid_key: 'BAEC_-8' },
    os: 'web',
    locale: 'de-AT',
  });
  assert.match(installation, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(zone, Intl.DateTimeFormat().resolvedOptions().timeZone);
});

test('permission is asked for before anything is awaited', () => {
  const page = browser({ permission: 'denied' });
  client().subscribe().catch(() => {});
  assert.equal(page.asked, 1);
});

test('the installation id stays the same', async () => {
  const storage = new Map();
  const ids = [];
  for (let i = 0; i < 2; i++) {
    const page = browser({ storage });
    await client().subscribe();
    ids.push(page.requests[1].body.installation_id);
  }
  assert.ok(ids[0]);
  assert.equal(ids[0], ids[1]);
});

test('subscribing works without storage', async () => {
  const page = browser();
  Object.defineProperty(globalThis, 'localStorage', {
    configurable: true,
    get: () => {
      throw named('SecurityError');
    },
  });
  assert.equal((await client().subscribe()).id, 'dev_1');
  assert.equal('installation_id' in page.requests[1].body, false);
});

test('a subscription made with another key is replaced', async () => {
  const page = browser({ subscribed: 'AAAA' });
  await client().subscribe();
  assert.equal(page.subscription.key, KEY);
  assert.equal(page.requests[1].body.subscription.endpoint, `${ENDPOINT}2`);
});

test('subscribe waits for the worker to be active', async () => {
  const page = browser({ worker: 'installing' });
  const done = client().subscribe();
  await until(() => page.registered.length > 0);
  page.settle('activated');
  assert.equal((await done).id, 'dev_1');
});

test('a worker that fails to install is an error', async () => {
  const page = browser({ worker: 'installing' });
  const done = client().subscribe();
  await until(() => page.registered.length > 0);
  page.settle('redundant');
  await assert.rejects(done, failure('worker_failed'));
});

test('errors have codes', async () => {
  browser({ permission: 'denied' });
  await assert.rejects(client().subscribe(), failure('permission_denied'));
  assert.equal(await client().state(), 'blocked');

  browser({ permission: 'default' });
  await assert.rejects(client().subscribe(), failure('permission_dismissed'));

  browser({ worker: 'missing' });
  await assert.rejects(client().subscribe(), failure('worker_failed'));

  browser({ answers: { 'GET /v1/me/push-key': [200, '{"public_key":"not base64!"}'] } });
  await assert.rejects(client().subscribe(), failure('subscribe_failed'));

  browser({ answers: { 'GET /v1/me/push-key': named('TypeError') } });
  await assert.rejects(client().subscribe(), failure('unreachable'));

  browser();
  await assert.rejects(client({ token: () => '' }).subscribe(), failure('no_token'));
});

test("the server's problem is passed on", async () => {
  const problem = JSON.stringify({ code: 'not_found', detail: 'This app has no VAPID key.' });
  browser({ answers: { 'GET /v1/me/push-key': [404, problem] } });
  await assert.rejects(client().subscribe(), (error) => {
    assert.equal(error.message, 'This app has no VAPID key.');
    return failure('not_found', 404)(error);
  });
  browser({ answers: { 'PUT /v1/me/devices': [502, '<html>'] } });
  await assert.rejects(client().subscribe(), failure('http_error', 502));
});

test('an unsupported browser', async () => {
  for (const missing of ['PushManager', 'Notification', 'isSecureContext']) {
    const page = browser();
    delete globalThis[missing];
    const c = client();
    assert.equal(c.supported(), false);
    assert.equal(await c.state(), 'unsupported');
    await assert.rejects(c.subscribe(), failure('unsupported'));
    assert.equal(await c.refresh(), null);
    await c.unsubscribe();
    assert.deepEqual(page.requests, []);
  }
});

test('refresh sends an existing subscription again and asks nothing', async () => {
  const page = browser({ subscribed: KEY });
  assert.deepEqual(await client().refresh(), { id: 'dev_1' });
  assert.equal(page.asked, 0);
  assert.equal(page.requests[1].body.subscription.endpoint, `${ENDPOINT}1`);
});

test('refresh does nothing where notifications were never on', async () => {
  const page = browser();
  assert.equal(await client().refresh(), null);
  globalThis.Notification.permission = 'granted';
  assert.equal(await client().refresh(), null);
  assert.deepEqual(page.requests, []);
  assert.deepEqual(page.registered, []);
});

test('refresh mends a subscription that the browser lost', async () => {
  const page = browser();
  const c = client();
  await c.subscribe();
  page.subscription = null;
  assert.equal(await c.state(), 'off');
  await c.refresh();
  assert.equal(await c.state(), 'on');
  assert.equal(page.requests.at(-1).body.subscription.endpoint, `${ENDPOINT}2`);
});

test('unsubscribe tells the server and the browser, and refresh leaves it at that', async () => {
  const page = browser();
  const c = client();
  await c.subscribe();
  page.requests.length = 0;
  await c.unsubscribe();
  assert.deepEqual(calls(page), ['POST /v1/me/devices/unregister']);
  assert.deepEqual(page.requests[0].body, { app: 'default', channel: 'webpush', address: `${ENDPOINT}1` });
  assert.equal(page.subscription, null);
  assert.equal(await c.refresh(), null);
  await c.unsubscribe();
  assert.equal(page.requests.length, 1);
});

test('the browser is unsubscribed even if the server cannot be told', async () => {
  const page = browser({ subscribed: KEY, answers: { 'POST /v1/me/devices/unregister': named('TypeError') } });
  await assert.rejects(client().unsubscribe(), failure('unreachable'));
  assert.equal(page.subscription, null);
});

test('a wider registration is not taken for its own', async () => {
  browser({ subscribed: KEY });
  assert.equal(await client({ scope: '/demo/' }).state(), 'off');
});

test("the worker's messages become events", async () => {
  const page = browser({ subscribed: KEY });
  const c = client();
  const heard = [];
  for (const type of ['push', 'click', 'error']) c.addEventListener(type, (e) => heard.push([type, e.detail]));
  const click = { action: '', url: null, delivery: 'dlv_1', data: null };
  for (const data of [{ type: 'carillon:push', payload: { a: 1 } }, { type: 'carillon:click', ...click }, { type: 'other' }, null]) {
    page.listeners.message({ data });
  }
  assert.deepEqual(heard, [['push', { a: 1 }], ['click', click]]);
});

test('a changed subscription is sent again; a failure of that is an event', async () => {
  const page = browser({ subscribed: KEY });
  client();
  page.listeners.message({ data: { type: 'carillon:subscriptionchange' } });
  await until(() => page.requests.length === 2);
  assert.equal(page.requests[1].method, 'PUT');

  const broken = browser({ subscribed: KEY, answers: { 'PUT /v1/me/devices': [503, '{"code":"unavailable"}'] } });
  const failing = client();
  const errors = [];
  failing.addEventListener('error', (e) => errors.push(e.detail));
  broken.listeners.message({ data: { type: 'carillon:subscriptionchange' } });
  await until(() => errors.length > 0);
  assert.ok(failure('unavailable', 503)(errors[0]));
});

test('a server behind a path', async () => {
  const page = browser();
  await client({ server: 'https://app.example/push/' }).subscribe().catch(() => {});
  assert.equal(page.requests[0].url, 'https://app.example/push/v1/me/push-key?app=default');
});

test('a token that is not a function is refused', () => {
  browser();
  assert.throws(() => client({ token: 'jwt' }), TypeError);
});
