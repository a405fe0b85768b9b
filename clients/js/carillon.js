// Carillon in the browser: subscribes this browser to a user's notifications.
//
//   import { Carillon } from 'https://push.example.com/sdk/v1/carillon.js';
//   const carillon = new Carillon({ server: 'https://push.example.com', token: () => fetchUserToken() });
//   await carillon.refresh();                                    // at every page load
//   button.onclick = () => carillon.subscribe();                 // only on a click
//   carillon.addEventListener('push', (e) => update(e.detail));  // while the page is open
//   await carillon.unsubscribe();                                // to turn it off, and before a user signs out
//
// The worker must come from the page's own origin; a file with the one line that sw.js tells does.

/**
 * @typedef {object} Options
 * @property {string} server  Address of the Carillon server; a path is kept, so it may be behind a prefix.
 * @property {() => string | Promise<string>} token  Gives the user token (a JWT that your backend signs).
 *   Called before each request, so that it may fetch a new one when the old one is about to expire.
 * @property {string} [app]  The tenant's app; "default" where there is only one.
 * @property {string} [worker]  Address of the service worker, of the page's own origin; "/sw.js".
 * @property {string} [scope]  What the worker is for; "/". A scope has one subscription.
 */

/**
 * "unsupported": this browser cannot (on iOS: not yet, the page must be on the home screen).
 * "blocked": the user has refused; only the browser's settings change that.
 * "off": not subscribed. "on": subscribed.
 * @typedef {'unsupported' | 'blocked' | 'off' | 'on'} State
 */

/**
 * What went wrong. Codes made here: unsupported, permission_denied, permission_dismissed, no_token,
 * worker_failed, subscribe_failed, unreachable. All others come from the server (problem+json).
 */
export class CarillonError extends Error {
  /**
   * @param {string} code  Stable; to be switched on.
   * @param {string} message  A sentence for people.
   * @param {number} [status]  The HTTP status; 0 where the server did not answer or was not asked.
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, status = 0, options = undefined) {
    super(message, options);
    this.name = 'CarillonError';
    this.code = code;
    this.status = status;
  }
}

const REQUEST_TIMEOUT = 15_000; // milliseconds
const INSTALLATION = 'carillon:installation';

/**
 * Events (CustomEvent): "push", detail is the payload as pushed; "click", detail {action, url, delivery, data};
 * "error", detail is a CarillonError of something that went on in the background.
 */
export class Carillon extends EventTarget {
  #server;
  #token;
  #app;
  #worker;
  #scope;

  /** @param {Options} options */
  constructor({ server, token, app = 'default', worker = '/sw.js', scope = '/' }) {
    super();
    if (typeof token !== 'function') throw new TypeError('token must be a function that gives the user token');
    this.#server = new URL(server, location.href).href.replace(/\/+$/, '');
    this.#token = token;
    this.#app = app;
    this.#worker = worker;
    this.#scope = new URL(scope, location.href).href;
    if (this.supported()) {
      navigator.serviceWorker.addEventListener('message', (event) => this.#message(event.data));
    }
  }

  /** Whether this browser can receive pushes on this page. @returns {boolean} */
  supported() {
    const names = ['PushManager', 'Notification'];
    return globalThis.isSecureContext === true && 'serviceWorker' in navigator && names.every((n) => n in globalThis);
  }

  /** @returns {Promise<State>} */
  async state() {
    if (!this.supported()) return 'unsupported';
    if (Notification.permission === 'denied') return 'blocked';
    return Notification.permission === 'granted' && (await this.#subscription()) ? 'on' : 'off';
  }

  /**
   * Turns notifications on. Call it from a click or key press: browsers ask for permission only then.
   * @returns {Promise<object>} the device as the server has it
   * @throws {CarillonError}
   */
  async subscribe() {
    if (!this.supported()) {
      throw new CarillonError('unsupported', 'This browser cannot receive notifications on this page.');
    }
    // Nothing may be awaited before this: Safari forgets the click.
    const permission = await Notification.requestPermission();
    if (permission === 'denied') {
      throw new CarillonError('permission_denied', 'Notifications are blocked in the settings of the browser.');
    }
    if (permission !== 'granted') {
      throw new CarillonError('permission_dismissed', 'The question whether to allow notifications was not answered.');
    }
    return this.#exclusive(() => this.#connect());
  }

  /**
   * Sends the subscription again, which keeps the server's record fresh, moves it to the present user, and
   * mends what the browser or a change of the server's key has broken. Asks nothing; call it at page load.
   * @returns {Promise<object | null>} the device, or null where notifications are not on
   * @throws {CarillonError}
   */
  async refresh() {
    if (!this.supported() || Notification.permission !== 'granted') return null;
    return this.#exclusive(async () => {
      if (!(await this.#subscription()) && !recall(this.#wanted)) return null;
      return this.#connect();
    });
  }

  /**
   * Turns notifications off: at the server, then in the browser. If the server cannot be told, the browser is
   * unsubscribed all the same and the error thrown; the server learns of it with its next send.
   * @returns {Promise<void>}
   * @throws {CarillonError}
   */
  async unsubscribe() {
    if (!this.supported()) return;
    await this.#exclusive(async () => {
      remember(this.#wanted, null);
      const subscription = await this.#subscription();
      if (!subscription) return;
      try {
        await this.#request('POST', '/v1/me/devices/unregister', {
          app: this.#app,
          channel: 'webpush',
          address: subscription.endpoint,
        });
      } finally {
        await subscription.unsubscribe();
      }
    });
  }

  /** The key in localStorage that says that the user has turned notifications on and not off again. */
  get #wanted() {
    return `carillon:on:${this.#scope}`;
  }

  /** Runs one change at a time over all tabs, so that two do not undo each other's subscription. */
  #exclusive(change) {
    return navigator.locks.request(`carillon:${this.#scope}`, change);
  }

  /** @returns {Promise<PushSubscription | null>} */
  async #subscription() {
    const registration = await navigator.serviceWorker.getRegistration(this.#scope);
    if (registration?.scope !== this.#scope) return null; // a wider one, not ours
    return registration.pushManager.getSubscription();
  }

  /** Registers the worker, subscribes and tells the server. Needs permission. */
  async #connect() {
    const { public_key: key } = await this.#request('GET', `/v1/me/push-key?app=${encodeURIComponent(this.#app)}`);
    const registration = await this.#register();
    const subscription = await subscribeWith(registration.pushManager, key);
    remember(this.#wanted, '1');
    return this.#request('PUT', '/v1/me/devices', {
      app: this.#app,
      channel: 'webpush',
      subscription: { ...subscription.toJSON(), vapid_key: encode(subscription.options?.applicationServerKey) ?? key },
      installation_id: installation(),
      os: 'web',
      locale: navigator.language,
      time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    });
  }

  async #register() {
    try {
      const registration = await navigator.serviceWorker.register(this.#worker, { scope: this.#scope });
      await activated(registration);
      return registration;
    } catch (cause) {
      throw new CarillonError('worker_failed', `The service worker did not start: ${cause.message}`, 0, { cause });
    }
  }

  /** @param {{type?: string}} message  from the worker */
  #message(message) {
    switch (message?.type) {
      case 'carillon:push':
        this.dispatchEvent(new CustomEvent('push', { detail: message.payload }));
        break;
      case 'carillon:click': {
        const { action, url, delivery, data } = message;
        this.dispatchEvent(new CustomEvent('click', { detail: { action, url, delivery, data } }));
        break;
      }
      case 'carillon:subscriptionchange':
        this.refresh().catch((error) => this.dispatchEvent(new CustomEvent('error', { detail: error })));
    }
  }

  /** One request to the server with the user's token; its JSON, {} where there is none. */
  async #request(method, path, body) {
    const token = await this.#token();
    if (!token) throw new CarillonError('no_token', 'There is no user token.');
    const headers = { Accept: 'application/json', Authorization: `Bearer ${token}` };
    if (body) headers['Content-Type'] = 'application/json';
    let response, text;
    try {
      response = await fetch(this.#server + path, {
        redirect: 'error', // the token is for this server alone
        method,
        headers,
        body: body && JSON.stringify(body),
        cache: 'no-store',
        credentials: 'omit',
        signal: AbortSignal.timeout(REQUEST_TIMEOUT),
      });
      text = await response.text();
    } catch (cause) {
      throw new CarillonError('unreachable', 'The notification server cannot be reached.', 0, { cause });
    }
    const answer = parse(text);
    if (response.ok) return answer;
    const message = answer.detail || answer.title || `The notification server answered with status ${response.status}.`;
    throw new CarillonError(answer.code || 'http_error', message, response.status);
  }
}

/** Resolves when the registration has a worker that runs; subscribe() fails before. */
function activated(registration) {
  const worker = registration.installing ?? registration.waiting;
  if (registration.active || !worker) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const look = () => {
      if (worker.state === 'activated') resolve();
      if (worker.state === 'redundant') reject(new Error('it failed to install'));
    };
    worker.addEventListener('statechange', look);
    look();
  });
}

/** Subscribes with the key (base64url); a subscription made with another key gives way. */
async function subscribeWith(pushManager, key) {
  try {
    const options = { userVisibleOnly: true, applicationServerKey: decode(key) };
    return await pushManager.subscribe(options).catch(async (error) => {
      if (error.name !== 'InvalidStateError') throw error;
      await (await pushManager.getSubscription())?.unsubscribe();
      return pushManager.subscribe(options);
    });
  } catch (cause) {
    throw new CarillonError('subscribe_failed', `The browser could not subscribe: ${cause.message}`, 0, { cause });
  }
}

/** @param {string} key  base64url @returns {Uint8Array} */
function decode(key) {
  return Uint8Array.from(atob(String(key).replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
}

/** @param {ArrayBuffer | null | undefined} bytes @returns {string | undefined} base64url */
function encode(bytes) {
  if (!bytes) return undefined;
  const text = btoa(String.fromCharCode(...new Uint8Array(bytes)));
  return text.replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
}

/** Names this browser for good, so that a new subscription replaces the old one; undefined without storage. */
function installation() {
  if (!recall(INSTALLATION)) remember(INSTALLATION, crypto.randomUUID());
  return recall(INSTALLATION) ?? undefined;
}

// Storage may be switched off; then reading or writing it throws.
function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function remember(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Then refresh() cannot mend a lost subscription.
  }
}

/** @returns {Record<string, any>} */
function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
