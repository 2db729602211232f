/* Follows the tasks that a page shows until they have ended. Nothing of the page is lost without it. */
"use strict";

{
    const SHORTEST = 1000, LONGEST = 15000; // milliseconds between two questions

    const follow = (part) => {
        const shown = part.querySelector("[data-backup-shown]");
        const spoken = part.querySelector("[data-backup-said]");
        const trouble = part.querySelector("[data-backup-trouble]");
        let pause = SHORTEST, last = "";

        const tell = (text) => {
            trouble.textContent = text;
            trouble.hidden = !text;
        };

        const ask = async () => {
            let answer;
            try {
                answer = await fetch(part.dataset.backupFollow, {
                    headers: {"X-Requested-With": "XMLHttpRequest"},
                    redirect: "manual",
                });
                if (answer.type === "opaqueredirect" || answer.status === 403 || answer.status === 404) {
                    tell(part.dataset.signedOut);
                    return;
                }
                if (!answer.ok) throw new Error(answer.statusText);
                const told = await answer.json();
                // As it was told: `innerHTML` spells it in its own way. What stays keeps focus and selection.
                if (last !== told.fragment) shown.innerHTML = last = told.fragment;
                if (spoken.textContent !== told.said) spoken.textContent = told.said;
                tell("");
                pause = SHORTEST;
                if (told.ended) return;
            } catch {
                tell(part.dataset.away);
                pause = Math.min(2 * pause, LONGEST);
            }
            setTimeout(ask, pause);
        };

        setTimeout(ask, pause);
    };

    const begin = () => document.querySelectorAll("[data-backup-follow]").forEach(follow);

    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
    else begin();
}
