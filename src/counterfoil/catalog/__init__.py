"""What is sold: products, prices, the benefits they promise, and discounts."""
