"""Every table, and what its rows are outside the database: for migrations, documentation and tests.

This module looks up the house from below, which no other module on this floor may do.
"""

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import tables as accounts
from counterfoil.accounts.types import (
    Address,
    ApiKey,
    Business,
    Customer,
    EmailPreference,
    Invitation,
    Nonce,
    OneTimeToken,
    Passkey,
    ProviderIdentity,
    Role,
    RoleAssignment,
    Session,
    Tenant,
    User,
    UserEmail,
)
from counterfoil.catalog import tables as catalog
from counterfoil.catalog.types import (
    Benefit,
    Discount,
    DiscountBuyer,
    DiscountRedemption,
    Price,
    Product,
    StockItem,
    StockReservation,
)
from counterfoil.db.schema import metadata
from counterfoil.events import tables as events
from counterfoil.events.types import Event, EventSeal
from counterfoil.exchange import tables as exchange
from counterfoil.exchange.types import InboxEntry, Owed, RailSettings
from counterfoil.idempotency import tables as idempotency
from counterfoil.idempotency.types import IdempotencyKey
from counterfoil.jobs import tables as jobs
from counterfoil.jobs.types import Job
from counterfoil.licensing import tables as licensing
from counterfoil.licensing.types import License, Machine, SigningKey, ValidationEntry
from counterfoil.mail import tables as mail
from counterfoil.mail.types import Email
from counterfoil.sales import tables as sales
from counterfoil.sales.types import (
    ArchivedPayment,
    Cart,
    CartLine,
    Checkout,
    Dispute,
    Fulfillment,
    FulfillmentItem,
    Invoice,
    Order,
    OrderDiscount,
    OrderHistoryEntry,
    Payment,
    PaymentReference,
    Refund,
)
from counterfoil.settlement import tables as settlement
from counterfoil.settlement.types import Grant, RailLink
from counterfoil.subscriptions import tables as subscriptions
from counterfoil.subscriptions.types import Subscription, SubscriptionItem, SubscriptionPeriod
from counterfoil.webhooks import tables as webhooks
from counterfoil.webhooks.types import Delivery, Sequence, StoredEndpoint

__all__ = ["STRUCTS", "metadata"]

STRUCTS: dict[sa.Table, type[msgspec.Struct]] = {
    accounts.tenants: Tenant,
    accounts.users: User,
    accounts.user_emails: UserEmail,
    accounts.email_preferences: EmailPreference,
    accounts.sessions: Session,
    accounts.passkeys: Passkey,
    accounts.identities: ProviderIdentity,
    accounts.customers: Customer,
    accounts.addresses: Address,
    accounts.businesses: Business,
    accounts.roles: Role,
    accounts.role_assignments: RoleAssignment,
    accounts.invitations: Invitation,
    accounts.api_keys: ApiKey,
    accounts.one_time_tokens: OneTimeToken,
    accounts.nonces: Nonce,
    catalog.products: Product,
    catalog.benefits: Benefit,
    catalog.prices: Price,
    catalog.discounts: Discount,
    catalog.discount_redemptions: DiscountRedemption,
    catalog.discount_buyers: DiscountBuyer,
    catalog.stock_items: StockItem,
    catalog.stock_reservations: StockReservation,
    sales.carts: Cart,
    sales.cart_lines: CartLine,
    sales.checkouts: Checkout,
    sales.payments: Payment,
    sales.orders: Order,
    sales.order_history: OrderHistoryEntry,
    sales.fulfillments: Fulfillment,
    sales.fulfillment_items: FulfillmentItem,
    sales.refunds: Refund,
    sales.payments_archive: ArchivedPayment,
    sales.payment_references: PaymentReference,
    sales.order_discounts: OrderDiscount,
    sales.invoices: Invoice,
    sales.disputes: Dispute,
    subscriptions.subscriptions: Subscription,
    subscriptions.subscription_items: SubscriptionItem,
    subscriptions.subscription_periods: SubscriptionPeriod,
    settlement.grants: Grant,
    settlement.rail_links: RailLink,
    licensing.signing_keys: SigningKey,
    licensing.licenses: License,
    licensing.machines: Machine,
    licensing.validation_log: ValidationEntry,
    exchange.inbox: InboxEntry,
    exchange.outbox: Owed,
    exchange.rail_settings: RailSettings,
    jobs.jobs: Job,
    events.events: Event,
    events.event_seals: EventSeal,
    mail.emails: Email,
    webhooks.webhook_endpoints: StoredEndpoint,
    webhooks.webhook_deliveries: Delivery,
    webhooks.webhook_sequences: Sequence,
    idempotency.idempotency_keys: IdempotencyKey,
}
"""Each table and the struct of its rows: the same names in the same order, without the tenant."""
