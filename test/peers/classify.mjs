// Classifies addresses with the npm package ipaddr.js.
// stdin:  an address per line.
// stdout: the address and the name of its range, "unicast" for public ones. An address
//         inside ::ffff:0:0/96 or 64:ff9b::/96 counts as the IPv4 address it carries.
import readline from "node:readline";

import ipaddr from "ipaddr.js";

const carriers = ["::ffff:0:0/96", "64:ff9b::/96"].map((block) => ipaddr.parseCIDR(block));

for await (const line of readline.createInterface({ input: process.stdin })) {
  let address = ipaddr.parse(line);
  if (address.kind() === "ipv6" && carriers.some((block) => address.match(block))) {
    address = new ipaddr.IPv4(address.toByteArray().slice(12));
  }
  console.log(`${line} ${address.range()}`);
}
