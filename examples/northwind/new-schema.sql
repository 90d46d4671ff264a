-- Northwind after.
--   renamed     tables (order_details → order_lines, …) and columns (customer_id → id, reports_to → manager_id, …)
--   split       customers, employees and suppliers lose their address columns to one table, `addresses`
--   merged      suppliers and shippers become `companies`
--   normalised  what orders said about the delivery (ship_*, freight, shipped_date) becomes `shipments`
--   retyped     smallint → bigint, real → numeric(12, 4), 0/1 → boolean
--
-- An address or a shipment in which nothing is set has no row: the constraints `not_empty` say so. With them "no row" and
-- "all columns null" are the same, and both mappings are exact inverses.
--
-- The app deletes an address with its owner.
--
-- Lengths are the old schema's, and numeric has a fixed scale: a number has one form only, and what fits here fits there.

create table categories (
  id bigint primary key,
  name varchar(15) not null,
  description text,
  picture bytea
);

create table companies (
  kind text not null check (kind in ('supplier', 'shipper')),
  id bigint not null,
  name varchar(40) not null,
  contact_name varchar(30),
  contact_title varchar(30),
  phone varchar(24),
  fax varchar(24),
  homepage text,
  primary key (kind, id),
  -- A shipper of the old schema has no more than this.
  constraint shipper_columns check (kind = 'supplier' or num_nonnulls(contact_name, contact_title, fax, homepage) = 0)
);

create table customer_types (
  id varchar(5) primary key,
  description text
);

create table customers (
  id varchar(5) primary key,
  name varchar(40) not null,
  contact_name varchar(30),
  contact_title varchar(30),
  phone varchar(24),
  fax varchar(24)
);

create table customer_type_members (
  customer_id varchar(5) not null references customers,
  customer_type_id varchar(5) not null references customer_types,
  primary key (customer_id, customer_type_id)
);

create table employees (
  id bigint primary key,
  last_name varchar(20) not null,
  first_name varchar(10) not null,
  title varchar(30),
  courtesy_title varchar(25),
  born_on date,
  hired_on date,
  phone varchar(24),
  extension varchar(4),
  photo bytea,
  photo_path varchar(255),
  notes text,
  manager_id bigint references employees
);

create table addresses (
  owner_kind text not null check (owner_kind in ('customer', 'employee', 'supplier')),
  -- The owner's id as text: customers have letters, employees and suppliers numbers.
  owner_id text not null,
  street varchar(60),
  city varchar(15),
  region varchar(15),
  postal_code varchar(10),
  country varchar(15),
  primary key (owner_kind, owner_id),
  constraint owner_number check (case owner_kind when 'customer' then true else owner_id = owner_id::bigint::text end),
  constraint not_empty check (num_nonnulls(street, city, region, postal_code, country) > 0)
);

create table regions (
  id bigint primary key,
  name varchar(60) not null
);

create table territories (
  id varchar(20) primary key,
  name varchar(60) not null,
  region_id bigint not null references regions
);

create table employee_territories (
  employee_id bigint not null references employees,
  territory_id varchar(20) not null references territories,
  primary key (employee_id, territory_id)
);

create table states (
  id bigint primary key,
  name varchar(100),
  abbreviation varchar(2),
  region varchar(50)
);

create table products (
  id bigint primary key,
  name varchar(40) not null,
  supplier_kind text not null generated always as ('supplier') stored,
  supplier_id bigint,
  category_id bigint references categories,
  quantity_per_unit varchar(20),
  unit_price numeric(12, 4),
  units_in_stock bigint,
  units_on_order bigint,
  reorder_level bigint,
  discontinued boolean not null,
  foreign key (supplier_kind, supplier_id) references companies
);

create table orders (
  id bigint primary key,
  customer_id varchar(5) references customers,
  employee_id bigint references employees,
  ordered_on date,
  required_on date
);

create table shipments (
  order_id bigint primary key references orders,
  shipper_kind text not null generated always as ('shipper') stored,
  shipper_id bigint,
  freight numeric(12, 4),
  shipped_on date,
  recipient varchar(40),
  street varchar(60),
  city varchar(15),
  region varchar(15),
  postal_code varchar(10),
  country varchar(15),
  foreign key (shipper_kind, shipper_id) references companies,
  constraint not_empty check (
    num_nonnulls(shipper_id, freight, shipped_on, recipient, street, city, region, postal_code, country) > 0)
);

create table order_lines (
  order_id bigint not null references orders,
  product_id bigint not null references products,
  unit_price numeric(12, 4) not null,
  quantity bigint not null,
  discount numeric(12, 4) not null,
  primary key (order_id, product_id)
);

create index order_lines_by_product on order_lines (product_id);
create index orders_by_customer on orders (customer_id);
