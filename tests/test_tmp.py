import pytest
@pytest.mark.parametrize("n", range(10))
async def test_a(database, tenant, n, clock):
    from counterfoil.accounts import tenants
    t = await database.scope(tenant).read(tenants.get)
    assert t.slug=="default"
async def test_b(databases):
    pass
def test_m(empty_database_url):
    from counterfoil.db.migrate import migrate,current,HEAD
    assert current(empty_database_url) is None
    assert migrate(empty_database_url)==[HEAD]
    assert current(empty_database_url) ==HEAD
    assert migrate(empty_database_url)==[]
def test_net():
    import socket
    from tests.support.network import OffTheNetwork
    with socket.socket() as s, pytest.raises(OffTheNetwork):
        s.connect(("10.0.0.1",1))
