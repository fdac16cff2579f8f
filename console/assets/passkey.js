// Talks to passkeys, for the forms that name what they need by data-passkey: "get" (sign in, confirm) or "create" (add one). Without WebAuthn such a form
// stays hidden, and everything else works as it does without scripts.
"use strict";

(() => {
  if (!window.PublicKeyCredential || !navigator.credentials || !PublicKeyCredential.parseRequestOptionsFromJSON) {
    return;
  }

  // Ends the offer among the logins, once somebody asks by the button.
  const offered = new AbortController();
  // Somebody is being asked, or has answered and is on the way to the next page: the other way in comes too late.
  let isBusy = false;

  async function begin(form) {
    const body = new URLSearchParams({ form_token: form.elements.form_token.value });
    const answer = await fetch(form.dataset.begin, { method: "POST", body, credentials: "same-origin", redirect: "error" });
    if (!answer.ok) {
      throw new Error(`the console answered ${answer.status}`);
    }
    return answer.json();
  }

  function send(form, ceremony, credential) {
    form.elements.ceremony.value = ceremony;
    form.elements.credential.value = JSON.stringify(credential.toJSON());
    form.submit();
  }

  async function ask(form) {
    const { ceremony, options } = await begin(form);
    const credential = form.dataset.passkey === "create"
      ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options.publicKey) })
      : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options.publicKey) });
    send(form, ceremony, credential);
  }

  // Passkeys among what the browser offers to fill into the login field.
  async function offer(form) {
    if (!form.dataset.conditional || !await PublicKeyCredential.isConditionalMediationAvailable?.()) {
      return;
    }
    const { ceremony, options } = await begin(form);
    const credential = await navigator.credentials.get({
      mediation: "conditional",
      publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options.publicKey),
      signal: offered.signal,
    });
    if (!isBusy) {
      isBusy = true;
      send(form, ceremony, credential);
    }
  }

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.hidden = false;
    const fault = form.querySelector("[data-passkey-fault]");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (isBusy) {
        return;
      }
      isBusy = true;
      offered.abort();
      fault.hidden = true;
      ask(form).catch(() => {
        isBusy = false;
        fault.hidden = false;
      });
    });
    // Whoever breaks it off chooses another way; that is no fault.
    offer(form).catch(() => {});
  }

  // Back on a page that the browser had kept as it was.
  window.addEventListener("pageshow", (event) => {
    isBusy &&= !event.persisted;
  });
})();
