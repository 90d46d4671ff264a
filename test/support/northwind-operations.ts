import type { Random } from "../../examples/support/random.ts";

/** One statement of a transaction. */
export type Statement = readonly [sql: string, ...values: unknown[]];
/** What a stray writer does in one transaction. */
export type Operation = (random: Random) => readonly Statement[];

/*
 * The same things done to the old and to the new schema: inserts, updates, changes of keys, deletes, several rows and
 * tables at once, rows that come back under a key that was deleted. Ids come from small pools, so that writers meet.
 * Prices are multiples of a quarter: a real holds them, and so does numeric(12,4).
 */

const customer = (random: Random) => `X${random.integer(30)}`;
const ownId = (random: Random, base: number) => base + random.integer(30);
const price = (random: Random) => random.integer(4_000) / 4;
const maybe = (random: Random, text: string) =>
  random.chance(0.3) ? null : `${text} ${random.integer(1_000)} – ü'"\\`;
/** street, city, region, postal_code, country; sometimes nothing at all. */
const address = (random: Random): (string | null)[] =>
  random.chance(0.2)
    ? [null, null, null, null, null]
    : [
        maybe(random, "street"),
        maybe(random, "ci"),
        "",
        random.chance(0.5) ? null : "12-3",
        maybe(random, "co"),
      ];

export const OLD_OPERATIONS: readonly Operation[] = [
  (r) => [
    [
      `insert into customers (customer_id, company_name, contact_name, address, city, region, postal_code, country)
       values ($1, $2, $3, $4, $5, $6, $7, $8)
       on conflict (customer_id) do update set company_name = excluded.company_name, address = excluded.address,
         city = excluded.city, region = excluded.region, postal_code = excluded.postal_code, country = excluded.country`,
      customer(r),
      `company ${r.integer(1_000)}`,
      maybe(r, "contact"),
      ...address(r),
    ],
  ],
  (r) => [
    ["update customers set customer_id = $2 where customer_id = $1", customer(r), customer(r)],
  ],
  (r) => {
    const id = customer(r);
    return [
      ["delete from customer_customer_demo where customer_id = $1", id],
      ["update orders set customer_id = null where customer_id = $1", id],
      ["delete from customers where customer_id = $1", id],
    ];
  },
  (r) => [
    [
      `update customers set address = $2, city = $3, region = $4, postal_code = $5, country = $6
       where customer_id = (select customer_id from customers order by 1 offset $1 limit 1)`,
      r.integer(91),
      ...address(r),
    ],
  ],
  (r) => {
    const id = ownId(r, 20_000);
    const line = `insert into order_details values ($1, $2, $3, $4, $5) on conflict do nothing`;
    return [
      [
        `insert into orders (order_id, customer_id, employee_id, order_date, ship_via, freight, ship_name, ship_address,
           ship_city, ship_region, ship_postal_code, ship_country)
         values ($1, (select customer_id from customers where customer_id = $2), $3, $4, 1, $5, $6, $7, $8, $9, $10, $11)`,
        id,
        customer(r),
        1 + r.integer(9),
        `2024-0${1 + r.integer(9)}-15`,
        price(r),
        maybe(r, "to"),
        ...address(r),
      ],
      [line, id, 1 + r.integer(77), price(r), 1 + r.integer(100), r.integer(4) / 4],
      [line, id, 1 + r.integer(77), price(r), 1 + r.integer(100), 0.05],
    ];
  },
  (r) => {
    const id = ownId(r, 20_000);
    return [
      ["delete from order_details where order_id = $1", id],
      r.chance(0.7)
        ? ["delete from orders where order_id = $1", id]
        : ["update orders set order_id = $2 where order_id = $1", id, ownId(r, 20_000)],
    ];
  },
  (r) => [
    [
      `update orders set freight = $2, ship_via = null, shipped_date = null, ship_name = $3, ship_address = $4, ship_city = $5,
         ship_region = $6, ship_postal_code = $7, ship_country = $8
       where order_id = (select order_id from orders order by 1 offset $1 limit 1)`,
      r.integer(830),
      r.chance(0.3) ? null : price(r),
      null,
      ...address(r),
    ],
  ],
  (r) => [
    [
      "update order_details set product_id = $3, quantity = quantity % 100 + 1 where order_id = $1 and product_id = $2",
      ownId(r, 20_000),
      1 + r.integer(77),
      1 + r.integer(77),
    ],
    ["update order_details set discount = 0.15 where order_id = $1", 10_248 + r.integer(830)],
  ],
  (r) => [
    [
      "update products set unit_price = $2, discontinued = 1 - discontinued where product_id = $1",
      1 + r.integer(77),
      r.chance(0.1) ? null : price(r),
    ],
    [
      "update products set units_in_stock = units_in_stock % 1000 + 1 where category_id = $1",
      1 + r.integer(8),
    ],
  ],
  (r) => [
    [
      `insert into suppliers (supplier_id, company_name, homepage, address, city, region, postal_code, country)
       values ($1, $2, $3, $4, $5, $6, $7, $8)
       on conflict (supplier_id) do update set company_name = excluded.company_name, address = excluded.address,
         city = excluded.city, region = excluded.region, postal_code = excluded.postal_code, country = excluded.country`,
      ownId(r, 1_000),
      `supplier ${r.integer(1_000)}`,
      maybe(r, "page"),
      ...address(r),
    ],
    [
      "update products set supplier_id = $2 where product_id = $1",
      1 + r.integer(77),
      1 + r.integer(29),
    ],
  ],
  (r) => [
    r.chance(0.5)
      ? ["delete from suppliers where supplier_id = $1", ownId(r, 1_000)]
      : [
          "update suppliers set supplier_id = $2 where supplier_id = $1",
          ownId(r, 1_000),
          ownId(r, 1_000),
        ],
    ["delete from shippers where shipper_id = $1", ownId(r, 1_000)],
  ],
  (r) => [
    [
      `insert into shippers values ($1, $2, $3) on conflict (shipper_id) do update set phone = excluded.phone`,
      ownId(r, 1_000),
      `shipper ${r.integer(1_000)}`,
      maybe(r, "phone"),
    ],
  ],
  (r) => [
    [
      `insert into employees (employee_id, last_name, first_name, birth_date, photo, reports_to, address, city, region, postal_code, country)
       values ($1, 'Last', 'First', '1990-02-28', decode(md5($2::text), 'hex'), $3, $4, $5, $6, $7, $8)
       on conflict (employee_id) do update set photo = excluded.photo, reports_to = excluded.reports_to, address = excluded.address,
         city = excluded.city, region = excluded.region, postal_code = excluded.postal_code, country = excluded.country`,
      ownId(r, 100),
      r.integer(1_000),
      1 + r.integer(9),
      ...address(r),
    ],
  ],
  (r) => {
    const id = ownId(r, 100);
    return [
      ["delete from employee_territories where employee_id = $1", id],
      ["update employees set reports_to = null where reports_to = $1", id],
      ["delete from employees where employee_id = $1", id],
    ];
  },
  (r) => [
    [
      "delete from employee_territories where employee_id = $1 and random() < 0.3",
      1 + r.integer(9),
    ],
    [
      `insert into employee_territories select $1, territory_id from territories order by territory_id offset $2 limit 2
       on conflict do nothing`,
      1 + r.integer(9),
      r.integer(50),
    ],
  ],
  (r) => {
    const type = `T${r.integer(5)}`;
    return [
      [
        "insert into customer_demographics values ($1, $2) on conflict (customer_type_id) do update set customer_desc = excluded.customer_desc",
        type,
        maybe(r, "type"),
      ],
      [
        `insert into customer_customer_demo select customer_id, $1 from customers where customer_id like 'X%' order by 1 offset $2 limit 2
         on conflict do nothing`,
        type,
        r.integer(10),
      ],
    ];
  },
  (r) => {
    const type = `T${r.integer(5)}`;
    return [
      ["delete from customer_customer_demo where customer_type_id = $1", type],
      ["delete from customer_demographics where customer_type_id = $1", type],
    ];
  },
  (r) => [
    [
      "update categories set picture = decode(md5($2::text), 'hex') where category_id = $1",
      1 + r.integer(8),
      r.integer(1_000),
    ],
    [
      "update territories set region_id = $2 where territory_id = (select min(territory_id) from territories where region_id <> $1)",
      1 + r.integer(4),
      1 + r.integer(4),
    ],
  ],
];

/**
 * The new app keeps an address with its owner: whoever changes either locks the owner first. Nothing set: no address and
 * no shipment.
 */
const lockOwner = (table: string, where: string, ...values: unknown[]): Statement => [
  `select from ${table} where ${where} for update`,
  ...values,
];

function setAddress(
  kind: "customer" | "employee" | "supplier",
  owner: string,
  id: string | number,
  parts: readonly (string | null)[],
): readonly Statement[] {
  const remove: Statement = [
    "delete from addresses where owner_kind = $1 and owner_id = $2",
    kind,
    String(id),
  ];
  if (parts.every((part) => part === null)) return [remove];
  const set: Statement = [
    `insert into addresses select '${kind}', id::text, $2, $3, $4, $5, $6 from ${owner} where id = $1${kind === "supplier" ? " and kind = 'supplier'" : ""}
     on conflict (owner_kind, owner_id) do update set street = excluded.street, city = excluded.city, region = excluded.region,
       postal_code = excluded.postal_code, country = excluded.country`,
    id,
    ...parts,
  ];
  return [set];
}

export const NEW_OPERATIONS: readonly Operation[] = [
  (r) => {
    const id = customer(r);
    return [
      [
        `insert into customers (id, name, contact_name) values ($1, $2, $3)
         on conflict (id) do update set name = excluded.name, contact_name = excluded.contact_name`,
        id,
        `company ${r.integer(1_000)}`,
        maybe(r, "contact"),
      ],
      ...setAddress("customer", "customers", id, address(r)),
    ];
  },
  (r) => {
    const [from, to] = [customer(r), customer(r)];
    return [
      lockOwner("customers", "id = $1", from),
      ["update customers set id = $2 where id = $1", from, to],
      [
        "update addresses set owner_id = $2 where owner_kind = 'customer' and owner_id = $1",
        from,
        to,
      ],
    ];
  },
  (r) => {
    const id = customer(r);
    return [
      lockOwner("customers", "id = $1", id),
      ["delete from customer_type_members where customer_id = $1", id],
      ["update orders set customer_id = null where customer_id = $1", id],
      ["delete from addresses where owner_kind = 'customer' and owner_id = $1", id],
      ["delete from customers where id = $1", id],
    ];
  },
  (r) => {
    const id = customer(r);
    return [
      lockOwner("customers", "id = $1", id),
      ...setAddress("customer", "customers", id, address(r)),
    ];
  },
  (r) => {
    const id = ownId(r, 20_000);
    const line = `insert into order_lines values ($1, $2, $3, $4, $5) on conflict do nothing`;
    return [
      [
        `insert into orders values ($1, (select id from customers where id = $2), $3, $4, null)`,
        id,
        customer(r),
        1 + r.integer(9),
        `2024-0${1 + r.integer(9)}-15`,
      ],
      [line, id, 1 + r.integer(77), price(r), 1 + r.integer(100), r.integer(4) / 4],
      [line, id, 1 + r.integer(77), price(r), 1 + r.integer(100), 0.05],
      ...(r.chance(0.3)
        ? []
        : [
            [
              "insert into shipments (order_id, shipper_id, freight, recipient) values ($1, 2, $2, $3)",
              id,
              price(r),
              maybe(r, "to"),
            ] as const,
          ]),
    ];
  },
  (r) => {
    const id = ownId(r, 20_000);
    return [
      ["delete from order_lines where order_id = $1", id],
      ["delete from shipments where order_id = $1", id],
      r.chance(0.7)
        ? ["delete from orders where id = $1", id]
        : ["update orders set id = $2 where id = $1", id, ownId(r, 20_000)],
    ];
  },
  (r) => [
    [
      `update shipments set freight = $2, shipper_id = null, street = 'moved', city = $3
       where order_id = (select order_id from shipments order by 1 offset $1 limit 1)`,
      r.integer(830),
      r.chance(0.3) ? null : price(r),
      maybe(r, "ci"),
    ],
    [
      "delete from shipments where order_id = (select order_id from shipments order by 1 offset $1 limit 1)",
      r.integer(830),
    ],
  ],
  (r) => [
    [
      `insert into shipments (order_id, freight, country) select id, $2, 'Norway' from orders order by id offset $1 limit 2
       on conflict (order_id) do update set freight = excluded.freight, country = excluded.country`,
      r.integer(830),
      price(r),
    ],
  ],
  (r) => [
    [
      "update order_lines set product_id = $3, quantity = quantity % 100 + 1 where order_id = $1 and product_id = $2",
      ownId(r, 20_000),
      1 + r.integer(77),
      1 + r.integer(77),
    ],
    ["update order_lines set discount = 0.15 where order_id = $1", 10_248 + r.integer(830)],
  ],
  (r) => [
    [
      "update products set unit_price = $2, discontinued = not discontinued where id = $1",
      1 + r.integer(77),
      r.chance(0.1) ? null : price(r),
    ],
    [
      "update products set units_in_stock = units_in_stock % 1000 + 1 where category_id = $1",
      1 + r.integer(8),
    ],
  ],
  (r) => {
    const id = ownId(r, 1_000);
    return [
      [
        `insert into companies (kind, id, name, homepage) values ('supplier', $1, $2, $3)
         on conflict (kind, id) do update set name = excluded.name, homepage = excluded.homepage`,
        id,
        `supplier ${r.integer(1_000)}`,
        maybe(r, "page"),
      ],
      ...setAddress("supplier", "companies", id, address(r)),
      ["update products set supplier_id = $2 where id = $1", 1 + r.integer(77), 1 + r.integer(29)],
    ];
  },
  (r) => {
    const id = ownId(r, 1_000);
    return [
      lockOwner("companies", "kind = 'supplier' and id = $1", id),
      ["delete from addresses where owner_kind = 'supplier' and owner_id = $1::text", String(id)],
      ["delete from companies where kind = 'supplier' and id = $1", id],
    ];
  },
  (r) => [
    ["delete from companies where kind = 'shipper' and id = $1", ownId(r, 1_000)],
    [
      `insert into companies (kind, id, name, phone) values ('shipper', $1, $2, $3) on conflict (kind, id) do update set phone = excluded.phone`,
      ownId(r, 1_000),
      `shipper ${r.integer(1_000)}`,
      maybe(r, "phone"),
    ],
  ],
  (r) => {
    const id = ownId(r, 100);
    return [
      [
        `insert into employees (id, last_name, first_name, born_on, photo, manager_id)
         values ($1, 'Last', 'First', '1990-02-28', decode(md5($2::text), 'hex'), $3)
         on conflict (id) do update set photo = excluded.photo, manager_id = excluded.manager_id`,
        id,
        r.integer(1_000),
        1 + r.integer(9),
      ],
      ...setAddress("employee", "employees", id, address(r)),
    ];
  },
  (r) => {
    const id = ownId(r, 100);
    return [
      lockOwner("employees", "id = $1", id),
      ["delete from employee_territories where employee_id = $1", id],
      ["update employees set manager_id = null where manager_id = $1", id],
      ["delete from addresses where owner_kind = 'employee' and owner_id = $1::text", String(id)],
      ["delete from employees where id = $1", id],
    ];
  },
  (r) => {
    const type = `T${r.integer(5)}`;
    return [
      [
        "insert into customer_types values ($1, $2) on conflict (id) do update set description = excluded.description",
        type,
        maybe(r, "type"),
      ],
      [
        `insert into customer_type_members select id, $1 from customers where id like 'X%' order by 1 offset $2 limit 2
         on conflict do nothing`,
        type,
        r.integer(10),
      ],
    ];
  },
  (r) => {
    const type = `T${r.integer(5)}`;
    return [
      ["delete from customer_type_members where customer_type_id = $1", type],
      ["delete from customer_types where id = $1", type],
    ];
  },
  (r) => [
    [
      "update categories set picture = decode(md5($2::text), 'hex') where id = $1",
      1 + r.integer(8),
      r.integer(1_000),
    ],
    [
      "delete from employee_territories where employee_id = $1 and random() < 0.3",
      1 + r.integer(9),
    ],
  ],
];
