// Makes and shows passkeys: asks the browser what the form says, and sends the form with the answer.
"use strict";
const bytesOf = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
const textOf = (buffer) => {
  const chars = Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join("");
  return btoa(chars).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
};
const decoded = (list) => list.map((one) => ({ ...one, id: bytesOf(one.id) }));

const make = async (options) => {
  const { response, ...rest } = await answer("create", {
    ...options,
    challenge: bytesOf(options.challenge),
    user: { ...options.user, id: bytesOf(options.user.id) },
    excludeCredentials: decoded(options.excludeCredentials),
  });
  return {
    ...rest,
    response: {
      clientDataJSON: textOf(response.clientDataJSON),
      attestationObject: textOf(response.attestationObject),
      transports: response.getTransports ? response.getTransports() : [],
    },
  };
};

const show = async (options) => {
  const { response, ...rest } = await answer("get", {
    ...options,
    challenge: bytesOf(options.challenge),
    allowCredentials: decoded(options.allowCredentials),
  });
  return {
    ...rest,
    response: {
      clientDataJSON: textOf(response.clientDataJSON),
      authenticatorData: textOf(response.authenticatorData),
      signature: textOf(response.signature),
      userHandle: response.userHandle ? textOf(response.userHandle) : null,
    },
  };
};

const answer = async (how, publicKey) => {
  const { id, rawId, type, response } = await navigator.credentials[how]({ publicKey });
  return { id, rawId: textOf(rawId), type, response };
};

const why = (error) => {
  switch (error.name) {
    case "NotAllowedError":
      return "It was canceled, took too long, or there is no passkey for it here. Try again.";
    case "InvalidStateError":
      return "This one holds a passkey of yours already. Use another security key or device.";
    case "SecurityError":
      return "Passkeys do not work at this address.";
    default:
      return `It did not work (${error.name}). Try again.`;
  }
};

for (const form of document.querySelectorAll("form[data-passkey]")) {
  const button = form.querySelector("button");
  const complaint = form.querySelector(".complaint");
  const say = (words) => {
    complaint.textContent = words;
    complaint.hidden = !words;
  };
  if (!window.PublicKeyCredential) {
    say("This browser offers no passkeys here.");
    continue;
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    say("");
    button.disabled = true;
    try {
      const work = form.dataset.passkey === "make" ? make : show;
      const credential = await work(JSON.parse(form.dataset.options));
      form.elements.credential.value = JSON.stringify(credential);
      form.submit();
    } catch (error) {
      say(why(error));
      button.disabled = false;
    }
  });
  window.addEventListener("pageshow", () => { button.disabled = false; });
  button.hidden = false;
}
