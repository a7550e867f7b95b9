"use strict";

// The steps of fourfold/report/explorer/predictions.py, which says why.

const ECE_BINS = 15;
const TAIL = 16;

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const codes = new Uint16Array(planes.length / 2);
  for (let i = 0; i < codes.length; i++) codes[i] = (planes[i] << 8) | planes[codes.length + i];
  return codes;
}

class Predictions {
  static async open(blob) {
    const self = new Predictions();
    Object.assign(self, JSON.parse(document.getElementById(`predictions-${blob}`).textContent));
    self.below = await inflated(self.below);
    self.above = await inflated(self.above);
    self.decoded = new Map();
    return self;
  }

  // Log-probabilities of the labels; probabilities of them and of all rivals, in steps.
  async member(network) {
    if (this.decoded.has(network)) return this.decoded.get(network);
    const codes = await inflated(this.networks[network]);
    const steps = Float64Array.from(codes);
    const logP = new Float64Array(this.images);
    for (let i = 0; i < this.images; i++) {
      if (codes[i] > this.steps) {
        logP[i] = (codes[i] - this.steps - 1) / -TAIL + Math.log(TAIL / this.steps);
        steps[i] = Math.exp(logP[i]) * this.steps;
      } else {
        logP[i] = Math.log(codes[i] / this.steps);
      }
    }
    const member = { logP, steps };
    this.decoded.set(network, member);
    return member;
  }

  // Accuracy, nll and ece of the mean of some networks' probabilities.
  async evaluate(networks) {
    const members = [];
    for (const network of networks) members.push(await this.member(network));
    const sums = new Float64Array(members[0].steps.length);
    for (const { steps } of members) for (let i = 0; i < sums.length; i++) sums[i] += steps[i];
    const gaps = new Float64Array(ECE_BINS);
    let right = 0;
    let nll = 0;
    let rival = this.images;
    for (let i = 0; i < this.images; i++) {
      let largest = -Infinity;
      for (const { logP } of members) largest = Math.max(largest, logP[i]);
      let sum = 0;
      for (const { logP } of members) sum += Math.exp(logP[i] - largest);
      const logMean = largest + Math.log(sum / members.length);
      let correct = true;
      let best = 0;
      const after = rival + this.below[i];
      const end = after + this.above[i];
      for (; rival < end; rival++) {
        if (sums[rival] > sums[i] || (rival < after && sums[rival] === sums[i])) correct = false;
        best = Math.max(best, sums[rival]);
      }
      const confidence = Math.max(best / (members.length * this.steps), Math.exp(logMean));
      const bin = Math.min(Math.floor(confidence * ECE_BINS), ECE_BINS - 1);
      gaps[bin] += confidence - correct;
      right += correct;
      nll -= logMean;
    }
    return {
      accuracy: right / this.images,
      nll: nll / this.images,
      ece: gaps.reduce((sum, gap) => sum + Math.abs(gap), 0) / this.images,
    };
  }
}
